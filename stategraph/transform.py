"""All transformations under one name: those of ``compile`` and of ``augment``.

>>> import stategraph as sg
>>> sg.transform.jit is sg.compile.jit, sg.transform.grad is sg.augment.grad
(True, True)
"""

from typing import TYPE_CHECKING, Any

from stategraph import augment as _augment
from stategraph import compile as _compile
from stategraph import errors as _errors
from stategraph.augment import *  # noqa: F403
from stategraph.compile import *  # noqa: F403

_LANES = "in_states= and out_states= say which States have lanes, and a State of which nothing is said is never guessed"
_PROGRAMS = "programs are not jaxprs here, but have a text form and passes of their own"
_REPLACED = {
    "vmap2": (
        _LANES,
        "stategraph.augment.vmap(function, in_states={axis: states}, out_states={axis: states})",
    ),
    "pmap2": (
        _LANES,
        "stategraph.augment.pmap(function, in_states={axis: states}, out_states={axis: states})",
    ),
    "StatefulMapping": (_LANES, "stategraph.augment.vmap(function, in_states=..., out_states=...)"),
    "vmap2_new_states": (
        "an ensemble is made by the model's own init_state",
        "stategraph.nn.vmap_init_all_states(model, axis_size=...)",
    ),
    "StatefulFunction": (
        _PROGRAMS,
        "stategraph.trace(function, ...): .program, .signature, .lower().explain()",
    ),
    "GradientTransform": (
        "each derivative is a function of its own",
        "stategraph.augment.grad, value_and_grad, jacrev, jacfwd, hessian, vjp or jvp",
    ),
    "jaxpr_to_python_code": (_PROGRAMS, "str(stategraph.trace(function, ...).program)"),
    "optimize_jaxpr": (_PROGRAMS, "stategraph.trace(function, ...).lower().program"),
}
_REPLACED |= {
    name: (_PROGRAMS, f"stategraph.trace(function, ...).lower().program: {does} is one of the default passes")
    for name, does in {
        "inline_jit": "inline-calls",
        "constant_fold": "fold-constants",
        "dead_code_elimination": "dce",
        "common_subexpression_elimination": "cse",
        "copy_propagation": "forward-state",
        "algebraic_simplification": "algebra",
    }.items()
}
"""Names of BrainState that are others here: why, and what to write."""

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        raise _errors.no_such_name(__name__, name, _REPLACED)


__all__: list[str] = []
__all__ += _compile.__all__
__all__ += _augment.__all__
