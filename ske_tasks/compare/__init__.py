"""Runs compared question by question: `python -m ske_tasks.compare RUN RUN`."""
