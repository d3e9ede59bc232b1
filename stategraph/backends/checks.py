"""Runtime checks: what one says, how it stands in a program, and how its failure is raised.

A check is a ``check.error_if`` op: an operand that says whether it fails, and values for the message. The pass
``lower-checks`` turns all checks of a program into one more State, born in the program: a *code* (0: nothing
failed, ``k``: check number ``k`` failed first) and, for every check, the values that it failed with. Hoisting
threads it through loops, branches and transformations like any other State. The executable returns its leaves
beside the results; whoever called it commits the States, looks at the code, and raises.

Bound eagerly, on concrete values, a check raises at once.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import attrs
import jax
import jax.numpy as jnp
import numpy as np

from stategraph import _jax
from stategraph.backends.params import encode, tree_of, treedef_of
from stategraph.errors import CheckError, LoweringError, StateGraphError, describe
from stategraph.ir.attributes import Opaque
from stategraph.ir.core import Op, Program, Region
from stategraph.ir.location import UNKNOWN, Location
from stategraph.ir.parser import parse

PLACE = "checks"
"""The attribute of a State symbol that makes it the place of a program's failures: what its checks say."""


@attrs.frozen(eq=False)
class Check:
    """What a check raises.

    ``tree`` nests the values for the message as ``(args, kwargs)``: first those known when the check was made
    (``fixed``, by position among all), the others are given when it fails.
    """

    message: str
    """A format string; empty when ``error`` says everything."""
    error: Any
    """An exception, a class of exceptions, a function of the values that raises or returns one, or None."""
    tree: Any
    fixed: tuple[tuple[int, Any], ...] = ()
    place: Location = UNKNOWN

    def attributes(self) -> dict[str, Any]:
        """The check as attributes of an op."""
        found: dict[str, Any] = {"message": self.message, "values": tree_of(self.tree)}
        if self.fixed:
            found["fixed"] = tuple((i, encode(value, _no_body)) for i, value in self.fixed)
        if self.error is not None:
            found["error"] = Opaque(_name(self.error), self.error)
        return found

    @classmethod
    def of(cls, attributes: Mapping[str, Any], place: Location) -> Check:
        """The check that attributes describe. From text, an error without text form is known by its name."""
        tree = attributes["values"]
        try:
            structure = treedef_of(tree)
        except LoweringError:
            structure = None
        fixed = tuple((i, _plain(value)) for i, value in attributes.get("fixed", ()))
        error = attributes.get("error")
        if isinstance(error, Opaque):
            error = error.payload if error.payload is not None else _builtin(error.name)
        return cls(attributes["message"], error, structure, fixed, place)

    def exception(self, leaves: Sequence[Any]) -> BaseException:
        """The exception for a failure with these values."""
        given = iter([np.asarray(leaf)[()] for leaf in leaves])
        fixed = dict(self.fixed)
        if self.tree is None:
            args, kwargs = tuple(given), {}
        else:
            values = [fixed[i] if i in fixed else next(given) for i in range(self.tree.num_leaves)]
            args, kwargs = jax.tree.unflatten(self.tree, values)
        error = self.error
        if error is None:
            return CheckError(describe(_formatted(self.message, args, kwargs), at=self.place))
        if isinstance(error, BaseException):
            return self._placed(error.with_traceback(None))
        try:
            raised = error(*args, **kwargs)
        except Exception as caught:
            return self._placed(caught)
        if isinstance(raised, BaseException):
            return self._placed(raised)
        what = f"A check failed, and {_name(error)}, which says why, raises nothing."
        return CheckError(describe(what, at=self.place))

    def _placed(self, error: BaseException) -> BaseException:
        note = f"  at:    the check at {self.place.file}:{self.place.line}"
        if self.place.known and note not in getattr(error, "__notes__", ()):
            error.add_note(note)
        return error


def jax_check(err_tree: Any) -> Check:
    """The check that a ``check`` equation of ``jax.experimental.checkify`` makes."""

    def failed(*leaves: Any) -> BaseException:
        return _jax.checkify_exception(err_tree, leaves)

    failed.__qualname__ = "checkify.check"
    return Check("", failed, jax.tree.structure(((0,) * err_tree.num_leaves, {})))


def _formatted(message: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    if not args and not kwargs:
        return message
    try:
        return message.format(*args, **kwargs)
    except (LookupError, ValueError, TypeError):
        values = [*map(str, args), *(f"{key}={value}" for key, value in kwargs.items())]
        return f"{message} ({', '.join(values)})"


def _name(error: Any) -> str:
    named = type(error) if isinstance(error, BaseException) else error
    return str(getattr(named, "__qualname__", None) or type(named).__qualname__)


def _builtin(name: str) -> Any:
    """A built-in class of exceptions by its name; what another name stood for is not known any more."""
    found = getattr(builtins, name, None)
    if isinstance(found, type) and issubclass(found, Exception):
        return found
    return lambda *args, **kwargs: CheckError(f"{name}{args or ''}{kwargs or ''}")


def _plain(value: Any) -> Any:
    return value.payload if isinstance(value, Opaque) else value


def _no_body(value: Any) -> NoReturn:
    raise TypeError("a function body is no value for a message")


# ----------------------------------------------------------------------------------------------- the primitive


def _eager(failed: Any, *leaves: Any, check: Check) -> Any:
    if bool(np.any(failed)):
        raise check.exception(leaves)
    return []


def _batched(values: Sequence[Any], axes: Sequence[Any], *, check: Check) -> Any:
    """Lanes of ``jax.vmap``: the check of the first one that fails."""
    failed, *leaves = values
    if axes[0] is None:
        first: Any = 0
    else:
        failed = jnp.moveaxis(failed, axes[0], 0)
        first = jnp.argmax(failed)
        failed = failed.any()
    own = [
        leaf if axis is None else jax.lax.dynamic_index_in_dim(leaf, first, axis, keepdims=False)
        for leaf, axis in zip(leaves, axes[1:], strict=True)
    ]
    check_p.bind(failed, *own, check=check)
    return [], []


def _differentiated(primals: Sequence[Any], tangents: Sequence[Any], *, check: Check) -> Any:
    check_p.bind(*primals, check=check)
    return [], []


check_p = _jax.new_primitive(
    "stategraph_check",
    lambda *avals, check: (),
    on_eval=_eager,
    on_batch=_batched,
    on_jvp=_differentiated,
    each_device=True,
)
"""Fails if its first operand, a ``bool[]``, holds; the others are values for the message."""


# -------------------------------------------------------------------------------------------- compiled programs


@attrs.frozen(eq=False)
class Checks:
    """The checks of a program in functional form."""

    path: str
    """The State symbol that holds code and values."""
    checks: tuple[Check, ...]
    sizes: tuple[int, ...]
    """How many values each check has."""

    @property
    def leaves(self) -> int:
        """How many leaves say what failed: the code, and the values of all checks."""
        return 1 + sum(self.sizes)

    def raise_failure(self, leaves: Sequence[Any]) -> None:
        """Raise the error of the check that failed first, if one did."""
        code = int(leaves[0])
        if not code:
            return
        start = 1 + sum(self.sizes[: code - 1])
        error = self.checks[code - 1].exception(leaves[start : start + self.sizes[code - 1]])
        raise error.with_traceback(None)

    def around(self, run: Callable[..., Any]) -> Callable[[Any, Any, Any], Any]:
        """``run``, which returns (result, leaves), as a function that raises after State is committed."""

        def checked(args: Any, kwargs: Any, given: Any) -> Any:
            result, leaves = run(args, kwargs, given)
            self.raise_failure(leaves)
            return result

        return checked


def checks_of(program: Program) -> Checks | None:
    """The checks of a program after ``lower-checks``; None when it has none."""
    for path, symbol in program.states.items():
        said = symbol.attributes.get(PLACE)
        if said is not None:
            checks = tuple(Check.of(one, Location(*one["at"])) for one in said)
            return Checks(path, checks, tuple(one["count"] for one in said))
    return None


def checks_text(program: Program) -> str:
    """The checks of a program as text, empty when it has none: an empty program with their State symbol."""
    found = [symbol for symbol in program.states.values() if PLACE in symbol.attributes]
    if not found:
        return ""
    body = Region()
    body.yield_(())
    return str(Program(program.name, body, {symbol.path: symbol for symbol in found}))


def checks_from_text(text: str) -> Checks | None:
    """What ``checks_text`` wrote."""
    return checks_of(parse(text)) if text else None


# ----------------------------------------------------------------------------------- in the reference interpreter


class CheckFailure(StateGraphError):
    """A check failed in the reference interpreter; what the check raises is the cause."""


def run_check(op: Op, operands: Sequence[Any]) -> Sequence[Any]:
    """Perform a ``check.error_if`` op."""
    check = Check.of(op.attributes, op.location)
    try:
        check_p.bind(*operands, check=check)
    except BaseException as error:
        raise _failure(error) from error
    return ()


def failure_of(program: Program, store: dict[str, tuple[Any, ...]]) -> None:
    """Raise the failure that a program after ``lower-checks`` leaves in its States, and forget about it."""
    checks = checks_of(program)
    if checks is None:
        return
    try:
        checks.raise_failure(store.pop(checks.path))
    except BaseException as error:
        raise _failure(error) from error


def _failure(error: BaseException) -> CheckFailure:
    return CheckFailure(f"{type(error).__name__}: {error}")
