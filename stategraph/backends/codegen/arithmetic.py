"""What each elementwise op is, for one element: the instructions that compute it.

Meaning is JAX's: integers wrap around, a shift by the width or more leaves nothing (or the sign), division of integers
by zero gives -1 (all bits set) and the remainder the dividend, ``max`` and ``min`` propagate NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

from stategraph.backends.codegen.erf_inv import erf_inv
from stategraph.backends.codegen.functions import Maths
from stategraph.backends.codegen.fusing import FUSED, QUOTIENT
from stategraph.backends.codegen.keys import HASH, hashed
from stategraph.backends.codegen.llvm import Function, is_float, is_signed, item_size, literal, llvm_type
from stategraph.ir.core import Op
from stategraph.ir.types import TensorType


@attrs.frozen
class Element:
    """One op for one element."""

    f: Function
    op: Op
    args: Sequence[str]
    constant: Sequence[bool]
    """Which operands are literals."""

    def dtype_of(self, index: int) -> str:
        return _dtype(self.op.operands[index].type)

    @property
    def dtype(self) -> str:
        """That of the first operand."""
        return self.dtype_of(0)

    @property
    def result(self) -> str:
        return _dtype(self.op.results[0].type)

    @property
    def type(self) -> str:
        return llvm_type(self.dtype)

    @property
    def maths(self) -> Maths:
        return Maths(self.f, self.dtype)

    def let(self, expression: str) -> str:
        return self.f.let(expression)

    def number(self, value: float) -> str:
        return literal(value, self.dtype)


Rule = Callable[[Element], str]


def _dtype(type_: object) -> str:
    if not isinstance(type_, TensorType):
        raise TypeError(f"no kernel computes with {type_}")
    return type_.dtype


def _of_numbers(name: str) -> Rule:
    def rule(e: Element) -> str:
        kind = f"f{name}" if is_float(e.dtype) else name
        return e.let(f"{kind} {e.type} {e.args[0]}, {e.args[1]}")

    return rule


def _bitwise(name: str) -> Rule:
    return lambda e: e.let(f"{name} {e.type} {e.args[0]}, {e.args[1]}")


def _divide(e: Element) -> str:
    a, b = e.args
    if is_float(e.dtype):
        # like XLA: a division by a literal is a multiplication by its inverse
        flags = "arcp " if e.constant[1] and e.f.contract else ""
        return e.let(f"fdiv {flags}{e.type} {a}, {b}")
    safe, by_zero = _safe_divisor(e)
    quotient = e.let(f"{'sdiv' if is_signed(e.dtype) else 'udiv'} {e.type} {a}, {safe}")
    if is_signed(e.dtype):
        overflow = e.let(f"icmp eq {e.type} {b}, -1")
        negated = e.let(f"sub {e.type} 0, {a}")
        quotient = e.let(f"select i1 {overflow}, {e.type} {negated}, {e.type} {quotient}")
    return e.let(f"select i1 {by_zero}, {e.type} -1, {e.type} {quotient}")


def _safe_divisor(e: Element) -> tuple[str, str]:
    """A divisor that cannot trap, and whether the given one is zero."""
    b = e.args[1]
    by_zero = e.let(f"icmp eq {e.type} {b}, 0")
    bad = by_zero
    if is_signed(e.dtype):
        bad = e.let(f"or i1 {by_zero}, {e.let(f'icmp eq {e.type} {b}, -1')}")
    return e.let(f"select i1 {bad}, {e.type} 1, {e.type} {b}"), by_zero


def _remainder(e: Element) -> str:
    a, b = e.args
    if is_float(e.dtype):
        return e.f.call("fmodf" if e.dtype == "f32" else "fmod", e.dtype, a, b)
    safe, by_zero = _safe_divisor(e)
    rest = e.let(f"{'srem' if is_signed(e.dtype) else 'urem'} {e.type} {a}, {safe}")
    return e.let(f"select i1 {by_zero}, {e.type} {a}, {e.type} {rest}")


def _extreme(name: str) -> Rule:
    def rule(e: Element) -> str:
        a, b = e.args
        if is_float(e.dtype):
            for x, y, known in ((a, b, e.constant[1]), (b, a, e.constant[0])):
                if known and y not in (e.number(0.0), e.number(-0.0), e.number(float("nan"))):
                    beyond = e.maths.compare("olt" if name == "max" else "ogt", x, y)
                    return e.maths.select(beyond, y, x)
            return e.f.call(f"llvm.{name}imum.{e.dtype}", e.dtype, a, b)
        if e.dtype == "bool":
            return e.let(f"{'or' if name == 'max' else 'and'} i1 {a}, {b}")
        how = ("s" if is_signed(e.dtype) else "u") + ("gt" if name == "max" else "lt")
        return e.let(f"select i1 {e.let(f'icmp {how} {e.type} {a}, {b}')}, {e.type} {a}, {e.type} {b}")

    return rule


def _compare(how: str) -> Rule:
    def rule(e: Element) -> str:
        a, b = e.args
        if is_float(e.dtype):
            return e.let(f"fcmp {'une' if how == 'ne' else 'o' + how} {e.type} {a}, {b}")
        order = "" if how in ("eq", "ne") else "s" if is_signed(e.dtype) else "u"
        return e.let(f"icmp {order}{how} {e.type} {a}, {b}")

    return rule


def _negate(e: Element) -> str:
    if is_float(e.dtype):
        return e.let(f"fneg {e.type} {e.args[0]}")
    return e.let(f"sub {e.type} 0, {e.args[0]}")


def _absolute(e: Element) -> str:
    a = e.args[0]
    if is_float(e.dtype):
        return e.maths.abs(a)
    if not is_signed(e.dtype):
        return a
    negative = e.let(f"icmp slt {e.type} {a}, 0")
    return e.let(f"select i1 {negative}, {e.type} {e.let(f'sub {e.type} 0, {a}')}, {e.type} {a}")


def _sign(e: Element) -> str:
    a = e.args[0]
    if is_float(e.dtype):
        one = e.f.call(f"llvm.copysign.{e.dtype}", e.dtype, e.number(1.0), a)
        other = e.maths.compare("ueq", a, e.number(0.0))  # zeros keep their sign, NaN stays
        return e.maths.select(other, a, one)
    positive = e.let(f"zext i1 {e.let(f'icmp ne {e.type} {a}, 0')} to {e.type}")
    if not is_signed(e.dtype):
        return positive
    negative = e.let(f"icmp slt {e.type} {a}, 0")
    return e.let(f"select i1 {negative}, {e.type} -1, {e.type} {positive}")


def _not(e: Element) -> str:
    return e.let(f"xor {e.type} {e.args[0]}, {'true' if e.dtype == 'bool' else -1}")


def _shift(name: str) -> Rule:
    def rule(e: Element) -> str:
        a, by = e.args
        width = 8 * item_size(e.dtype)
        inside = e.let(f"icmp ult {e.type} {by}, {width}")
        if name == "ashr":
            by = e.let(f"select i1 {inside}, {e.type} {by}, {e.type} {width - 1}")
            return e.let(f"ashr {e.type} {a}, {by}")
        safe = e.let(f"select i1 {inside}, {e.type} {by}, {e.type} 0")
        return e.let(f"select i1 {inside}, {e.type} {e.let(f'{name} {e.type} {a}, {safe}')}, {e.type} 0")

    return rule


def _select(e: Element) -> str:
    which, *cases = e.args
    type_ = llvm_type(e.result)
    if e.dtype == "bool":
        return (
            cases[0]
            if len(cases) == 1
            else e.let(f"select i1 {which}, {type_} {cases[1]}, {type_} {cases[0]}")
        )
    chosen = cases[-1]
    for i in range(len(cases) - 2, -1, -1):
        here = e.let(f"icmp sle i32 {which}, {i}")
        chosen = e.let(f"select i1 {here}, {type_} {cases[i]}, {type_} {chosen}")
    return chosen


def _clamp(e: Element) -> str:
    low, x, high = e.args
    if is_float(e.dtype):
        x = e.f.call(f"llvm.maximum.{e.dtype}", e.dtype, low, x)
        return e.f.call(f"llvm.minimum.{e.dtype}", e.dtype, high, x)
    order = "s" if is_signed(e.dtype) else "u"
    x = e.let(f"select i1 {e.let(f'icmp {order}lt {e.type} {x}, {low}')}, {e.type} {low}, {e.type} {x}")
    return e.let(f"select i1 {e.let(f'icmp {order}gt {e.type} {x}, {high}')}, {e.type} {high}, {e.type} {x}")


def convert(f: Function, value: str, source: str, target: str) -> str:
    """A value of one dtype as another: what does not fit an integer becomes the nearest that does, NaN becomes 0."""
    if source == target:
        return value
    old, new = llvm_type(source), llvm_type(target)
    if target == "bool":
        if is_float(source):
            return f.let(f"fcmp une {old} {value}, {literal(0, source)}")
        return f.let(f"icmp ne {old} {value}, 0")
    if is_float(source):
        if is_float(target):
            return f.let(f"{'fpext' if target == 'f64' else 'fptrunc'} {old} {value} to {new}")
        kind = "s" if is_signed(target) else "u"
        name = f"llvm.fpto{kind}i.sat.{new}.{source}"
        f.declarations[f"declare {new} @{name}({old})"] = None
        return f.let(f"call {new} @{name}({old} {value})")
    if is_float(target):
        return f.let(f"{'sitofp' if is_signed(source) else 'uitofp'} {old} {value} to {new}")
    before, after = (1 if source == "bool" else 8 * item_size(source)), 8 * item_size(target)
    if before == after:
        return value
    widen = "sext" if is_signed(source) else "zext"
    return f.let(f"{widen if before < after else 'trunc'} {old} {value} to {new}")


def _convert(e: Element) -> str:
    return convert(e.f, e.args[0], e.dtype, e.result)


def _bitcast(e: Element) -> str:
    """The same bits as another type of the same size."""
    old, new = e.type, llvm_type(e.result)
    return e.args[0] if old == new else e.let(f"bitcast {old} {e.args[0]} to {new}")


def _integer_power(e: Element) -> str:
    exponent, x = e.op.attributes["y"], e.args[0]
    kind = "fmul" if is_float(e.dtype) else "mul"
    result, power, left = None, x, abs(exponent)
    while left:
        if left & 1:
            result = power if result is None else e.let(f"{kind} {e.type} {result}, {power}")
        left >>= 1
        if left:
            power = e.let(f"{kind} {e.type} {power}, {power}")
    if result is None:
        return e.number(1)
    return e.maths.div(e.number(1.0), result) if exponent < 0 else result


def _library(name: str) -> Rule:
    """A function of the C library, one call an element."""
    return lambda e: e.f.call(name + ("f" if e.dtype == "f32" else ""), e.dtype, *e.args)


def _power(e: Element) -> str:
    x, y = e.args
    if e.dtype_of(1) != e.dtype:
        y = convert(e.f, y, e.dtype_of(1), e.dtype)
    return e.f.call("powf" if e.dtype == "f32" else "pow", e.dtype, x, y)


def _intrinsic(name: str) -> Rule:
    return lambda e: e.f.call(f"llvm.{name}.{e.dtype}", e.dtype, *e.args)


def _round(e: Element) -> str:
    to_even = getattr(e.op.attributes.get("rounding_method"), "member", "") == "TO_NEAREST_EVEN"
    return e.f.call(f"llvm.{'roundeven' if to_even else 'round'}.{e.dtype}", e.dtype, *e.args)


def _maths(name: str) -> Rule:
    return lambda e: str(getattr(e.maths, name)(e.args[0]))


def _fused(e: Element) -> str:
    a, b, c = e.args
    minus_a, minus_c = e.op.attributes["negated"]
    a = e.let(f"fneg {e.type} {a}") if minus_a else a
    c = e.let(f"fneg {e.type} {c}") if minus_c else c
    return e.maths.fused(a, b, c)


def _is_finite(e: Element) -> str:
    return e.maths.compare("olt", e.maths.abs(e.args[0]), e.number(float("inf")))


def _same(e: Element) -> str:
    return e.args[0]


def _square(e: Element) -> str:
    return e.let(f"{'fmul' if is_float(e.dtype) else 'mul'} {e.type} {e.args[0]}, {e.args[0]}")


def _inverse_root(e: Element) -> str:
    return e.maths.div(e.number(1.0), e.f.call(f"llvm.sqrt.{e.dtype}", e.dtype, *e.args))


RULES: dict[str, Rule] = {
    "jax.add": lambda e: _or_xor(e, "or") or _of_numbers("add")(e),
    "jax.add_any": _of_numbers("add"),
    "jax.sub": _of_numbers("sub"),
    "jax.mul": lambda e: _or_xor(e, "and") or _of_numbers("mul")(e),
    "jax.div": _divide,
    "jax.rem": _remainder,
    "jax.max": _extreme("max"),
    "jax.min": _extreme("min"),
    "jax.pow": _power,
    "jax.integer_pow": _integer_power,
    "jax.square": _square,
    "jax.neg": _negate,
    "jax.abs": _absolute,
    "jax.sign": _sign,
    "jax.floor": _intrinsic("floor"),
    "jax.ceil": _intrinsic("ceil"),
    "jax.round": _round,
    "jax.sqrt": _intrinsic("sqrt"),
    "jax.rsqrt": _inverse_root,
    "jax.exp": _maths("exp"),
    "jax.expm1": _maths("expm1"),
    "jax.log": _maths("log"),
    "jax.log1p": _maths("log1p"),
    "jax.tanh": _maths("tanh"),
    "jax.logistic": _maths("logistic"),
    "jax.exp2": _library("exp2"),
    "jax.cbrt": _library("cbrt"),
    "jax.sin": _library("sin"),
    "jax.cos": _library("cos"),
    "jax.tan": _library("tan"),
    "jax.asin": _library("asin"),
    "jax.acos": _library("acos"),
    "jax.atan": _library("atan"),
    "jax.sinh": _library("sinh"),
    "jax.cosh": _library("cosh"),
    "jax.asinh": _library("asinh"),
    "jax.acosh": _library("acosh"),
    "jax.atanh": _library("atanh"),
    "jax.atan2": _library("atan2"),
    "jax.erf": _library("erf"),
    "jax.erfc": _library("erfc"),
    "jax.erf_inv": lambda e: erf_inv(e.maths, e.args[0]),
    "jax.lgamma": _library("lgamma"),
    "jax.is_finite": _is_finite,
    "jax.eq": _compare("eq"),
    "jax.ne": _compare("ne"),
    "jax.lt": _compare("lt"),
    "jax.le": _compare("le"),
    "jax.gt": _compare("gt"),
    "jax.ge": _compare("ge"),
    "jax.and": _bitwise("and"),
    "jax.or": _bitwise("or"),
    "jax.xor": _bitwise("xor"),
    "jax.not": _not,
    "jax.shift_left": _shift("shl"),
    "jax.shift_right_logical": _shift("lshr"),
    "jax.shift_right_arithmetic": _shift("ashr"),
    "jax.select_n": _select,
    "jax.clamp": _clamp,
    "jax.convert_element_type": _convert,
    "jax.bitcast_convert_type": _bitcast,
    HASH: lambda e: hashed(e.f, e.args[:2], e.args[2:])[e.op.attributes["word"]],
    FUSED: _fused,
    QUOTIENT: _maths("quotient"),
    "jax.stop_gradient": _same,
    "jax.copy": _same,
    "jax.copy_p": _same,
}
"""The instructions of every elementwise op."""


def _or_xor(e: Element, name: str) -> str | None:
    return e.let(f"{name} i1 {e.args[0]}, {e.args[1]}") if e.dtype == "bool" else None
