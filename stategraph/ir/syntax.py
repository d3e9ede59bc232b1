"""The pleasant spellings: which ops print in a form of their own.

Any op prints in the generic form, ``%r = name %a, %b {key = value} : types region(%x : type) { … }``. A
``Form`` is a row of data that makes the common ops read better; printer and parser both follow it. An op that
does not fit its row (a program that is being debugged, say) prints generically under a quoted name,
``"flow.scan"``, and so nothing is ever lost.
"""

from __future__ import annotations

from typing import Any

import attrs

from stategraph.ir.core import Op


@attrs.frozen
class Form:
    """How one op name is spelt."""

    head: str | None = None
    """An attribute (a str) that stands right after the name as ``@value``."""
    separator: str = ","
    """What stands between the head and the operands."""
    groups: tuple[tuple[str, str | None], ...] = ()
    """Operands bound to the regions' arguments, ``carry(%c = %init : f32[])``: keyword, and the attribute
    that says how many operands the group takes (None: all others)."""
    labels: tuple[str, ...] = ()
    """A keyword before each region. Without groups an op may have fewer regions than labels."""
    numbered: bool = False
    """Any number of regions, ``branch 0 {…} branch 1 {…}``."""
    defaults: tuple[tuple[str, Any], ...] = ()
    """Attributes that are not printed when they have this value."""

    def counted(self) -> set[str]:
        """Attributes that the groups show by their sizes."""
        return {size for _, size in self.groups if size is not None}


FORMS: dict[str, Form] = {
    "state.read": Form(head="symbol"),
    "state.write": Form(head="symbol"),
    "state.alloc": Form(head="symbol", separator="="),
    "flow.scan": Form(
        groups=(("carry", "carry"), ("xs", None)), labels=("",), defaults=(("reverse", False), ("unroll", 1))
    ),
    "flow.while": Form(groups=(("carry", None),), labels=("cond", "body")),
    "flow.cond": Form(labels=("branch",), numbered=True),
    "flow.call": Form(head="name", groups=(("", None),), labels=("",)),
    "flow.custom_jvp": Form(labels=("call", "jvp")),
    "flow.custom_vjp": Form(labels=("call", "fwd", "bwd")),
    "xform.remat": Form(groups=(("", None),), labels=("",)),
    "native.kernel": Form(groups=(("", None),), labels=("",)),
    "xform.grad": Form(groups=(("", None),), labels=("",)),
    "xform.vmap": Form(
        groups=(("", None),),
        labels=("",),
        defaults=(
            ("axis_name", None),
            ("spmd_axis_name", None),
            ("in_states", ()),
            ("out_states", ()),
            ("private", ()),
            ("shared", ()),
        ),
    ),
    "xform.shard_map": Form(
        groups=(("", None),),
        labels=("",),
        defaults=(("check_vma", True), ("states", ()), ("private", ()), ("written", ())),
    ),
    "xform.jvp": Form(labels=("body",)),
    "xform.vjp": Form(labels=("body",)),
}


def form_of(op: Op) -> Form | None:
    """The form in which ``op`` can be written without loss, None for the generic one."""
    form = FORMS.get(op.name)
    return form if form is not None and _fits(op, form) else None


def group_sizes(form: Form, op: Op) -> list[int]:
    """How many operands each group takes."""
    sizes = [op.attributes[size] if size is not None else 0 for _, size in form.groups]
    return [
        len(op.operands) - sum(sizes) if name is None else size
        for (_, name), size in zip(form.groups, sizes, strict=True)
    ]


def region_labels(op: Op) -> list[str]:
    """The words that stand before the regions of ``op``."""
    form = form_of(op) if op.name in FORMS else None
    if form is None:
        return ["region"] * len(op.regions)
    if form.numbered:
        return [f"{form.labels[0]} {i}" for i in range(len(op.regions))]
    return list(form.labels[: len(op.regions)])


def _fits(op: Op, form: Form) -> bool:
    attributes = op.attributes
    if form.head is not None and type(attributes.get(form.head)) is not str:
        return False
    if form.defaults and any(name not in attributes for name, _ in form.defaults):
        return False
    if not form.groups:
        return form.numbered or len(op.regions) <= len(form.labels)
    if len(op.regions) != len(form.labels):
        return False
    for size in form.counted():
        if type(attributes.get(size)) is not int or not 0 <= attributes[size] <= len(op.operands):
            return False
    args = [(arg.type, arg.event) for arg in op.regions[0].args]
    return len(args) == len(op.operands) and all(
        [(arg.type, arg.event) for arg in region.args] == args for region in op.regions[1:]
    )
