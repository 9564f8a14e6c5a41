"""The judges: an OpenAI-compatible endpoint, an answer key, the model itself (`training/stages/judge.py`)."""
