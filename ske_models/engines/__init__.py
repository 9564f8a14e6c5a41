"""What runs prompts: the loop over vLLM's engine, and the one dispatcher to HTTP servers."""
