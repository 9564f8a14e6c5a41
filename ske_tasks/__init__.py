"""Tasks of the suite for lm-eval: the six benchmarks and TinyWorld."""
