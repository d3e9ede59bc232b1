"""Passes: rewrites of programs, and the machinery that finds, runs and watches them. Imports the IR and no
JAX.

    from stategraph.passes import run_passes
    outcome = run_passes(program, "default,my-pass{x=1}")

``base`` says what a pass is, ``registry`` how it gets a name, ``pipeline`` how pipelines are written,
``manager`` and ``instruments`` how they run. One file is one pass; ``docs/write-a-pass.md`` builds one from
nothing.
"""

from stategraph.passes import hooks
from stategraph.passes.base import EXACTNESS, Option, Pass, PassError
from stategraph.passes.context import Context, Explanation, Validator
from stategraph.passes.instruments import (
    Bisect,
    Counts,
    Instrument,
    PrintProgram,
    Statistics,
    Timing,
    Validate,
    Verify,
    count,
)
from stategraph.passes.manager import Outcome, PassManager, run_passes
from stategraph.passes.pipeline import DEFAULT, Passes, Pipeline, default_pipeline, parse_pipeline
from stategraph.passes.registry import available, load_file, lookup, names, origin, register

__all__ = [
    # writing a pass
    "Pass",
    "register",
    "Context",
    "Explanation",
    "Option",
    "EXACTNESS",
    "PassError",
    # running passes
    "run_passes",
    "PassManager",
    "Outcome",
    "Pipeline",
    "Passes",
    "parse_pipeline",
    "default_pipeline",
    "DEFAULT",
    # watching them
    "Instrument",
    "Verify",
    "Validate",
    "Validator",
    "Bisect",
    "PrintProgram",
    "Timing",
    "Statistics",
    "Counts",
    "count",
    # finding them
    "lookup",
    "names",
    "available",
    "origin",
    "load_file",
    "hooks",
]
