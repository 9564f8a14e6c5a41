"""Servers that a run starts, watches and stops itself (`generation.serve`, `judge.serve` of a recipe)."""
