"""The self-learning loop, a file per stage: `python training/round.py`."""
