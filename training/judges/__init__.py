"""The judges: an OpenAI-compatible endpoint, and the model itself (`training/stages/judge.py`)."""
