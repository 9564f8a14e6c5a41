"""What a recipe is made of: checked numbers and names, its errors with their line, secrets, paths."""
