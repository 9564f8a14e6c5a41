"""The stages of a round, a file per stage, named like the stage."""
