"""From a model's text to its answer, and whether that is right."""
