"""SKE-Learn: the method (knowledge first, then reasoning) and its adapters to the evaluation harnesses."""
