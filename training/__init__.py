"""The self-learning loop: questions, knowledge, reasoning, scores, selection, SFT; `python training/round.py`."""
