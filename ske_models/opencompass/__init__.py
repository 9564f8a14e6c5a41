"""The adapter to OpenCompass: `from ske_models.opencompass import SKEExplicit` in a config."""

from ske_models.opencompass.model import SKEExplicit, conclusion

__all__ = ["SKEExplicit", "conclusion"]
