"""Two passes of another package: one is a class, the other a function."""

import attrs

from stategraph.ir import Program, Rewriter
from stategraph.passes import Context, Pass, register


@attrs.frozen
class DropPrints(Pass):
    """Remove debug prints."""

    name = "drop-prints"
    ordered: bool = False
    """Remove ordered prints as well."""

    def run(self, program: Program, context: Context) -> None:
        prints = [
            op for op in program.walk("host.debug_print") if self.ordered or not op.attributes.get("ordered")
        ]
        Rewriter().erase_all(prints)
        context.report(program.name, "removed debug prints", prints=len(prints))


@register
def report_ops(program: Program, context: Context) -> None:
    """Report how many ops the program has."""
    context.report(program.name, "counted", ops=sum(1 for _ in program.walk()))
