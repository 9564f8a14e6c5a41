"""The judges: an OpenAI-compatible endpoint, the model itself, TinyWorld's oracle (`training/stages/judge.py`)."""
