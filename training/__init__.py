"""The self-learning loop, a module each stage: `python training/round.py`."""
