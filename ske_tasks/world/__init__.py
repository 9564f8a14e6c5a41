"""TinyWorld: a closed world of invented facts, its questions, its corpus, and the oracle that knows all."""

from ske_tasks.world.facts import Fact, World, default_world

__all__ = ["Fact", "World", "default_world"]
