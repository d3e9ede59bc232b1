"""Saving and restoring the State of models, optimisers and the random stream."""

from stategraph.saving.checkpoint import load, save

__all__ = ["load", "save"]
