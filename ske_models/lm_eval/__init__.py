"""The adapter to lm-eval: `lm_eval --model ske_explicit`."""

from ske_models.lm_eval.model import SKEExplicitLM

__all__ = ["SKEExplicitLM"]
