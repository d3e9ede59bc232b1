"""The inverse of the error function: Giles, "Approximating the erfinv function" (2011), the polynomials that XLA has too."""

from __future__ import annotations

import math

from stategraph.backends.codegen.functions import Maths

_SINGLE = (
    (
        2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 2.1858087e-04, -1.25372503e-03,
        -4.17768164e-03, 2.46640727e-01, 1.50140941,
    ),
    (
        -2.00214257e-04, 1.00950558e-04, 1.34934322e-03, -3.67342844e-03, 5.73950773e-03, -7.6224613e-03,
        9.43887047e-03, 1.00167406, 2.83297682,
    ),
)  # fmt: skip
_DOUBLE = (
    (
        -3.64441206401782e-21, -1.6850591381820166e-19, 1.28584807152564e-18, 1.1157877678025181e-17,
        -1.3331716628546209e-16, 2.0972767875968562e-17, 6.6376381343583238e-15, -4.0545662729752069e-14,
        -8.1519341976054722e-14, 2.6335093153082323e-12, -1.2975133253453532e-11, -5.4154120542946279e-11,
        1.0512122733215323e-09, -4.1126339803469837e-09, -2.9070369957882005e-08, 4.2347877827932404e-07,
        -1.3654692000834679e-06, -1.3882523362786469e-05, 1.8673420803405714e-04, -7.40702534166267e-04,
        -6.0336708714301491e-03, 2.4015818242558962e-01, 1.6536545626831027,
    ),
    (
        2.2137376921775787e-09, 9.0756561938885391e-08, -2.7517406297064545e-07, 1.8239629214389228e-08,
        1.5027403968909828e-06, -4.013867526981546e-06, 2.9234449089955446e-06, 1.2475304481671779e-05,
        -4.7318229009055734e-05, 6.8284851459573175e-05, 2.4031110387097894e-05, -3.5503752036284748e-04,
        9.532893797373805e-04, -1.6882755560235047e-03, 2.4914420961078508e-03, -3.7512085075692412e-03,
        5.3709145535900636e-03, 1.0052589676941592, 3.0838856104922208,
    ),
    (
        -2.7109920616438573e-11, -2.5556418169965252e-10, 1.5076572693500548e-09, -3.789465440126737e-09,
        7.61570120807834e-09, -1.496002662714924e-08, 2.9147953450901081e-08, -6.7711997758452339e-08,
        2.2900482228026655e-07, -9.9298272942317e-07, 4.5260625972231537e-06, -1.9681778105531671e-05,
        7.5995277030017761e-05, -2.1503011930044477e-04, -1.3871931833623122e-04, 1.0103004648645344,
        4.8499064014085844,
    ),
)  # fmt: skip
"""The polynomials of each range of ``w = -log(1 - x**2)``, the highest power first."""
_RANGES = {
    "f32": ((5.0, 2.5), (math.inf, 3.0)),
    "f64": ((6.25, 3.125), (16.0, 3.25), (math.inf, 5.0)),
}
"""(where a range ends, what is subtracted: from w in the first range, from its root in the others)."""


def erf_inv(m: Maths, x: str) -> str:
    """``x`` between -1 and 1; infinite at the ends, NaN beyond them."""
    w = m.f.let(f"fneg {m.type} {m.log1p(m.mul(x, m.f.let(f'fneg {m.type} {x}')))}")
    root = m.f.call(f"llvm.sqrt.{m.dtype}", m.dtype, w)
    polynomials = _SINGLE if m.dtype == "f32" else _DOUBLE
    total = ""
    for (end, offset), coefficients in reversed(list(zip(_RANGES[m.dtype], polynomials, strict=True))):
        start = w if coefficients is polynomials[0] else root
        found = m.polynomial(m.sub(start, m.number(offset)), coefficients)
        total = found if not total else m.select(m.compare("olt", w, m.number(end)), found, total)
    at_end = m.compare("oeq", m.abs(x), m.number(1.0))
    return m.select(at_end, m.mul(x, m.number(math.inf)), m.mul(total, x))
