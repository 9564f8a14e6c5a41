"""The six benchmarks: their sources, one row schema, loading and metrics."""
