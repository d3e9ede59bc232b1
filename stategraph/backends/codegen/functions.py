"""exp, log and their like, written out so that LLVM computes them for many elements at once.

A call into the C library is made once per element; these are polynomials. ``exp`` and ``expm1`` divide the line into
intervals of length ln 2 and use a Taylor polynomial (f64) or the coefficients of Moshier's Cephes library (f32) in
each; ``log`` is that of fdlibm (Sun Microsystems, 1993). Errors are 2 units in the last place at most.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from stategraph.backends.codegen.llvm import Function, literal, llvm_type

_EXP = {
    "f32": (
        1.9875691500e-4,
        1.3981999507e-3,
        8.3334519073e-3,
        4.1665795894e-2,
        1.6666665459e-1,
        5.0000001201e-1,
    ),
    "f64": tuple(1.0 / math.factorial(n) for n in range(13, 1, -1)),
}
"""``(expm1(r) - r) / r**2`` for ``|r| <= ln(2) / 2``, the highest power first."""
_LN2 = {
    "f32": (0.693359375, -2.12194440e-4),
    "f64": (6.93145751953125e-1, 1.42860682030941723212e-6),
}
"""ln 2 in two parts, the first of which has few bits."""
_LOG_LN2 = {
    "f32": (6.9313812256e-01, 9.0580006145e-06),
    "f64": (6.93147180369123816490e-01, 1.90821492927058770002e-10),
}
_LOG = {
    "f32": (0.66666662693, 0.40000972152, 0.28498786688, 0.24279078841),
    "f64": (
        6.666666666666735130e-01,
        3.999999999940941908e-01,
        2.857142874366239149e-01,
        2.222219843214978396e-01,
        1.818357216161805012e-01,
        1.531383769920937332e-01,
        1.479819860511658591e-01,
    ),
}
_QUOTIENT = {
    "f32": (
        2.4800303435768e-05,
        2.0391104044392705e-04,
        1.3895082520321012e-03,
        8.32995492964983e-03,
        4.166625812649727e-02,
        1.6666732728481293e-01,
        5.000000596046448e-01,
        1.0,
    ),
    "f64": tuple(1.0 / math.factorial(n) for n in range(18, 0, -1)),
}
"""``expm1(x) / x`` for ``|x| <= 1``, the highest power first: the polynomial with the smallest relative error that has eight
terms (f32, 1.4 units in the last place), Taylor's (f64).
"""
_BITS = {"f32": (32, 23, 127), "f64": (64, 52, 1023)}
"""Width, bits of the fraction, bias of the exponent."""


class Maths:
    """Writes functions of one float dtype into a function."""

    def __init__(self, f: Function, dtype: str) -> None:
        self.f, self.dtype, self.type = f, dtype, llvm_type(dtype)
        self.width, self.fraction, self.bias = _BITS[dtype]

    def number(self, value: float) -> str:
        return literal(value, self.dtype)

    def binary(self, name: str, a: str, b: str, flags: str = "") -> str:
        return self.f.let(f"{name} {flags}{self.type} {a}, {b}")

    def add(self, a: str, b: str, flags: str = "") -> str:
        return self.binary("fadd", a, b, flags)

    def sub(self, a: str, b: str, flags: str = "") -> str:
        return self.binary("fsub", a, b, flags)

    def mul(self, a: str, b: str, flags: str = "") -> str:
        return self.binary("fmul", a, b, flags)

    def div(self, a: str, b: str) -> str:
        return self.binary("fdiv", a, b)

    def fused(self, a: str, b: str, c: str) -> str:
        """``a * b + c``, rounded once where the machine can."""
        if not self.f.contract:
            return self.add(self.mul(a, b), c)
        return self.f.call(f"llvm.fmuladd.{self.dtype}", self.dtype, a, b, c)

    def polynomial(self, x: str, coefficients: Sequence[float]) -> str:
        """By Horner's rule, the highest power first."""
        total = self.number(coefficients[0])
        for coefficient in coefficients[1:]:
            total = self.fused(total, x, self.number(coefficient))
        return total

    def compare(self, how: str, a: str, b: str) -> str:
        return self.f.let(f"fcmp {how} {self.type} {a}, {b}")

    def select(self, condition: str, yes: str, no: str) -> str:
        return self.f.let(f"select i1 {condition}, {self.type} {yes}, {self.type} {no}")

    def abs(self, x: str) -> str:
        return self.f.call(f"llvm.fabs.{self.dtype}", self.dtype, x)

    def bits(self, x: str) -> str:
        return self.f.let(f"bitcast {self.type} {x} to i{self.width}")

    def from_bits(self, x: str) -> str:
        return self.f.let(f"bitcast i{self.width} {x} to {self.type}")

    def integer(self, name: str, a: str, b: int | str) -> str:
        return self.f.let(f"{name} i{self.width} {a}, {b}")

    def bounded(self, x: str, low: float, high: float) -> str:
        """``x`` between two numbers; NaN stays NaN."""
        x = self.select(self.compare("olt", x, self.number(low)), self.number(low), x)
        return self.select(self.compare("ogt", x, self.number(high)), self.number(high), x)

    def power_of_two(self, n: str) -> str:
        """2 to a whole number, where that is a normal number."""
        biased = self.integer("add", n, self.bias)
        return self.from_bits(self.integer("shl", biased, self.fraction))

    # ------------------------------------------------------------------------------------------------ exp, log

    def reduced(self, x: str) -> tuple[str, str]:
        """(n, expm1(r)) with ``x = n ln 2 + r``; n is a whole number (garbage for NaN)."""
        # adding this number leaves the nearest whole number in the lowest bits
        magic = 1.5 * 2.0**self.fraction
        shifted = self.fused(x, self.number(1.4426950408889634), self.number(magic))
        whole = self.sub(shifted, self.number(magic))
        n = self.f.let(f"sub i{self.width} {self.bits(shifted)}, {self._magic_bits()}")
        high, low = _LN2[self.dtype]
        r = self.fused(whole, self.number(-high), x)  # exact: high has few bits
        r = self.fused(whole, self.number(-low), r)
        square = self.mul(r, r)
        return n, self.fused(self.polynomial(r, _EXP[self.dtype]), square, r)

    def _magic_bits(self) -> int:
        exponent = self.fraction + self.bias
        return (exponent << self.fraction) | (1 << (self.fraction - 1))

    def exp(self, x: str) -> str:
        limits = {"f32": (-104.0, 89.0), "f64": (-746.0, 710.0)}[self.dtype]
        n, p = self.reduced(self.bounded(x, *limits))
        half = self.integer("ashr", n, 1)
        rest = self.integer("sub", n, half)
        first, second = self.power_of_two(half), self.power_of_two(rest)
        return self.mul(self.fused(p, first, first), second)

    def expm1(self, x: str) -> str:
        limits = {"f32": (-30.0, 89.0), "f64": (-50.0, 710.0)}[self.dtype]
        n, p = self.reduced(self.bounded(x, *limits))
        # half of the result, so that the power stays finite
        power = self.power_of_two(self.integer("sub", n, 1))
        rest = self.sub(power, self.number(0.5))
        result = self.mul(self.fused(p, power, rest), self.number(2.0))
        return self.with_sign(result, x)  # of zero

    def with_sign(self, size: str, x: str) -> str:
        return self.f.call(f"llvm.copysign.{self.dtype}", self.dtype, size, x)

    def log(self, x: str) -> str:
        smallest = 2.0 ** (1 - self.bias)
        is_small = self.compare("olt", x, self.number(smallest))
        scaled = self.select(is_small, self.mul(x, self.number(2.0 ** (self.fraction + 2))), x)
        offset = {"f32": 0x3F3504F3, "f64": 0x3FE6A09E << 32}[self.dtype]
        one = self.bias << self.fraction
        bits = self.integer("add", self.bits(scaled), one - offset)
        k = self.integer("sub", self.integer("ashr", bits, self.fraction), self.bias)
        fraction = self.integer("and", bits, (1 << self.fraction) - 1)
        m = self.from_bits(self.integer("add", fraction, offset))
        shift = self.f.let(f"select i1 {is_small}, i{self.width} {self.fraction + 2}, i{self.width} 0")
        dk = self.f.let(f"sitofp i{self.width} {self.integer('sub', k, shift)} to {self.type}")
        f = self.sub(m, self.number(1.0))
        s = self.div(f, self.add(f, self.number(2.0)))
        z = self.mul(s, s)
        w = self.mul(z, z)
        coefficients = _LOG[self.dtype]
        odd = self.mul(z, self.polynomial(w, coefficients[0::2][::-1]))
        even = self.mul(w, self.polynomial(w, coefficients[1::2][::-1]))
        half = self.mul(self.mul(self.number(0.5), f), f)
        high, low = _LOG_LN2[self.dtype]
        total = self.fused(dk, self.number(low), self.mul(s, self.add(half, self.add(odd, even))))
        total = self.add(self.sub(total, half), f)
        total = self.fused(dk, self.number(high), total)
        infinity = self.number(math.inf)
        total = self.select(self.compare("olt", scaled, infinity), total, x)  # inf and NaN
        total = self.select(self.compare("oeq", x, self.number(0.0)), self.number(-math.inf), total)
        return self.select(self.compare("olt", x, self.number(0.0)), self.number(math.nan), total)

    def log1p(self, x: str) -> str:
        u = self.add(x, self.number(1.0))
        log = self.log(u)
        lost = self.sub(x, self.sub(u, self.number(1.0)))
        total = self.add(log, self.div(lost, u))
        finite = self.compare("olt", self.abs(log), self.number(math.inf))
        total = self.select(finite, total, log)
        tiny = self.compare("olt", self.abs(x), self.number(2.0 ** -(self.fraction + 2)))
        return self.select(tiny, x, total)

    def tanh(self, x: str) -> str:
        e = self.expm1(self.mul(self.abs(x), self.number(-2.0)))
        size = self.div(self.f.let(f"fneg {self.type} {e}"), self.add(e, self.number(2.0)))
        return self.with_sign(size, x)

    def logistic(self, x: str) -> str:
        e = self.exp(self.f.let(f"fneg {self.type} {x}"))
        return self.div(self.number(1.0), self.add(e, self.number(1.0)))

    # ------------------------------------------------------------------------------------------------ quotients

    def quotient(self, x: str) -> str:
        """``expm1(x) / x``: a polynomial where it holds."""
        is_near = self.integer("icmp ult", self.distance(x), self.near)
        return self.select(is_near, self.near_quotient(x), self.div(self.expm1(x), x))

    def near_quotient(self, x: str) -> str:
        """The polynomial."""
        return self.polynomial(x, _QUOTIENT[self.dtype])

    def distance(self, x: str) -> str:
        """How far from 0 a number is, as a whole number in order: 0 itself, whose quotient is NaN, and NaN are farthest."""
        return self.integer("sub", self.bits(self.abs(x)), 1)

    @property
    def near(self) -> int:
        """The first distance beyond that of 1, where the polynomial does not hold."""
        return self.bias << self.fraction
