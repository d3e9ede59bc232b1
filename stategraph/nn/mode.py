"""Training or evaluating: what layers such as dropout and batch normalisation ask before they compute.

The setting ``fit`` of ``stategraph.environ`` decides where there is one. Else each module has a mode of its own,
``module.training``, which ``model.train()`` and ``model.eval()`` set. It is an attribute like any other: compiled
functions notice when it changes. A module that has neither evaluates.
"""

from __future__ import annotations

import warnings
from typing import Any

from stategraph import _jax, environ
from stategraph.errors import describe
from stategraph.recording import LOCAL

_warned_in: int | None = None
"""The trace that was last warned in."""


def is_fitting(module: Any) -> bool:
    """Whether a module is being trained."""
    fit = environ.get(environ.FIT, None)
    if fit is not None:
        return bool(fit)
    if module.training is not None:
        return bool(module.training)
    if _under_gradient():
        _warn(module)
    return False


def _under_gradient() -> bool:
    for trace in _jax.trace_chain():
        frame = _jax.frame_of(trace)
        if _jax.is_differentiating(trace):
            return True
        if frame is not None and _jax.traced_for(frame) in ("stategraph grad", "stategraph vjp"):
            return True
    return False


def _warn(module: Any) -> None:
    global _warned_in
    recorder = LOCAL.recorder
    if recorder is not None:
        if recorder.number == _warned_in:
            return
        _warned_in = recorder.number
    warnings.warn(
        describe(
            f"{type(module).__name__} evaluates while a gradient is taken.",
            at=_jax.here(),
            why="nobody has said that the model is being trained",
            fix="model.train(), or `with stategraph.environ.context(fit=True): ...`; or model.eval() if this is meant",
        ),
        stacklevel=3,
    )
