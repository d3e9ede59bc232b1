"""What all stages of a program have."""

from __future__ import annotations

from stategraph.errors import PickleError, describe
from stategraph.ir.core import Program
from stategraph.passes.context import Explanation
from stategraph.tracing.signature import SignatureTable, signature_table


class Explanations(list[Explanation]):
    """Records of what was decided about States and ops; prints one a line."""

    def __str__(self) -> str:
        return "\n".join(map(str, self))


class Stage:
    """What all stages have: a program and its signature."""

    program: Program

    @property
    def signature(self) -> SignatureTable:
        """Inputs, State in, outputs and State out, by name."""
        return signature_table(self.program)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.program!r}>"

    def _refuse_to_pickle(self) -> PickleError:
        kind = type(self).__name__
        return PickleError(
            describe(
                f"{kind} programs cannot be pickled or copied: {self.program.name!r} is one.",
                why="it is bound to an executable and to live States of this process",
                fix="keep `.export()` of it (`.save(path)`, `.to_bytes()`), which runs without the model; or pickle the model and "
                "compile it again; a model may hold stategraph.compile.jit(function), which is pickled with it",
            )
        )

    def _repr_html_(self) -> str:
        return self.program._repr_html_()
