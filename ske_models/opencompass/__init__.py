"""The adapter to OpenCompass: `from ske_models.opencompass import SKEExplicit` in a config."""

from ske_models.opencompass.model import SKEExplicit
from ske_models.opencompass.stated import conclusion, reply_only

__all__ = ["SKEExplicit", "conclusion", "reply_only"]
