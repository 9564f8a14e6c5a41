"""What makes lm-eval know our model and tasks. Nothing here imports torch."""
