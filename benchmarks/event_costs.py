"""What ``rewrite-events`` makes of a wrong guess, and what its cost model rests on.

    python benchmarks/event_costs.py                 the short form: both sides of each threshold
    python benchmarks/event_costs.py guesses all     every rate
    python benchmarks/event_costs.py guesses vectors generic          some families, without native kernels
    python benchmarks/event_costs.py model           what the terms of the model cost

*Guesses.* Spikes whose rate nobody declares are multiplied with a matrix by two programs: the one that the default pipeline
makes, and the ordinary one (``rewrite-events{mode=never}``), in turns. The figure is the ratio of the median times
of a call; at most 1.2 is what the model promises for whatever is active. Where both programs are the same, nothing is
measured. *Families* are vectors and batches, in a call and in a loop, with the matrix as it lies and transposed, masked
matrices, and sparse ones of ``jax.experimental.sparse``.

*Model.* Microseconds of a product inside a compiled loop, the best of several calls; ``columns`` reads the matrix the wrong
way round; ``threshold=1`` keeps the event product from becoming an ordinary one. Beside each figure stands what the model
says (``stategraph/passes/event_costs.py``).
"""

from __future__ import annotations

import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import attrs
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import sparse

import stategraph as sg
from benchmarks.common import table
from stategraph.backends.events.primitives import dense_product
from stategraph.ir.types import short_dtype
from stategraph.passes import hooks
from stategraph.passes.event_costs import TABLE, Size, dense_cost, event_cost, threshold
from stategraph.passes.pipeline import DEFAULT
from stategraph.passes.rewrite_events import kernels

MOST = 2e10
"""Multiplications of one call beyond which a case is left out."""
RATES = (0.0, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
STEPS = 5
"""Of loops."""
DTYPES = ("float32", "float64", "float16", "bfloat16")

# --------------------------------------------------------------------------------------------------------- guesses


@attrs.frozen
class Case:
    """One product."""

    form: str
    """``s @ w``, ``w @ s``, ``s @ (w * mask)``, ``s @ BCOO``, ``BCSR @ s``."""
    size: int
    batch: int
    dtype: str = "float32"
    looped: bool = False

    @property
    def steps(self) -> int:
        """Of the loop: synapses in any order are sorted before one that is long."""
        return (200 if self.form == "s @ BCOO" else STEPS) if self.looped else 1

    @property
    def family(self) -> str:
        rows = "vector" if self.batch == 1 else "batch"
        return f"{rows}, {self.form}, {'loop' if self.looped else 'call'}, {self.dtype}"


def families(names: Iterable[str]) -> Iterator[Case]:
    """The cases that are asked for: those whose family contains each of some words."""
    sizes, batches = (256, 512, 1024, 2048, 4096, 8192), (1, 8, 32, 128, 512)
    forms = ("s @ w", "w @ s", "s @ (w * mask)")
    cases = [Case(*case) for case in itertools.product(forms, sizes, batches, DTYPES, (False, True))]
    cases += [
        Case(form, size, 1, looped=looped)
        for form in ("s @ BCOO", "BCSR @ s")
        for size in (512, 2048, 8192)
        for looped in (False, True)
    ]
    return (
        case
        for case in cases
        if case.batch * case.size**2 * case.steps <= MOST
        and all(name in case.family or name == str(case.size) for name in names)
    )


def function(case: Case) -> Callable[[Any, Any], Any]:
    """The product of spikes, and of spikes in a loop whose input depends on the result of the step before."""

    def send(v: Any, w: Any) -> Any:
        spikes = (v >= 1).astype(case.dtype)
        match case.form:
            case "s @ w" | "s @ BCOO":
                return spikes @ w
            case "s @ (w * mask)":
                return spikes @ (w[0] * w[1])
            case _ if case.batch > 1:
                return spikes @ w.T
        return w @ spikes

    def run(vs: Any, w: Any) -> Any:
        before = sg.ShortTermState(jnp.zeros(vs.shape[1:], case.dtype))

        def step(v: Any) -> None:
            before.value = send(v + 1e-6 * before.value, w)

        sg.compile.for_loop(step, vs)
        return before.value

    return run if case.looped else lambda vs, w: send(vs[0], w)


def weights(case: Case) -> Any:
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(case.size, case.size)).astype(case.dtype)
    match case.form:
        case "s @ BCOO" | "BCSR @ s":
            kind = sparse.BCOO if "BCOO" in case.form else sparse.BCSR
            return kind.fromdense(np.where(rng.random(matrix.shape) < 0.02, matrix, 0))
        case "s @ (w * mask)":
            return jnp.asarray(matrix), jnp.asarray((rng.random(matrix.shape) < 0.5).astype(case.dtype))
    return jnp.asarray(matrix)


def membranes(case: Case, what: float | int | str) -> Any:
    """Potentials of which so many spike: a share, a number in each step, whole lanes, the same in all lanes."""
    rng = np.random.default_rng(1)
    steps, size = case.steps, case.batch * case.size
    fired = np.zeros((steps, case.batch, case.size), bool)
    if what == "one lane":
        fired[:, 0] = True
    elif what == "lanes alike":
        fired[:] = rng.random((steps, 1, case.size)) < 0.02
    else:
        number = what if isinstance(what, int) else round(what * size)
        for own in fired.reshape(steps, size):
            own[rng.permutation(size)[:number]] = True
    shape = (steps, case.size) if case.batch == 1 else fired.shape
    return jnp.asarray(2 * fired.reshape(shape), case.dtype)


def guesses(case: Case, every: bool) -> dict[str, float]:
    """By what is active, how many times as long the program with events takes; empty where it has none."""
    run, w = function(case), weights(case)
    quiet = membranes(case, 0)
    ours = sg.compile.jit(run)
    program = ours.lower(quiet, w).program
    products = [op for name in ("event.dense", "event.csr") for op in program.walk(name)]
    if not products:
        return {}
    pipeline = ",".join(
        "rewrite-events{mode=never}" if name == "rewrite-events" else name for name in DEFAULT
    )
    plain = sg.compile.jit(run, passes=pipeline)
    said = products[0].attributes.get("threshold")
    if said is None:
        size = Size(case.batch, case.size, case.size, np.dtype(case.dtype).itemsize)
        costs = TABLE[kernels(hooks.platform(), short_dtype(case.dtype))]
        said = threshold(costs, size, bool(products[0].attributes.get("transposed")))
    most = int(said * case.batch * case.size)
    active: dict[str, float | int | str] = {
        "0": 0,
        "1 %": 0.01,
        f"most ({said:.1%})": most,
        "one more": most + 1,
        "all": 1.0,
    }
    if every:
        active |= {f"{rate:.1%}": rate for rate in RATES}
    if case.batch > 1:
        active |= {"one lane": "one lane", "lanes alike": "lanes alike"}
    return {name: _surely(ours, plain, membranes(case, what), w) for name, what in active.items()}


def _surely(*given: Any) -> float:
    """The ratio, at a glance; where that is high the median of three, because a product of XLA may take 1.5 times as long as
    just before.
    """
    first = ratio(*given, spend=0.06)
    return first if first < 1.1 else statistics.median(ratio(*given) for _ in range(3))


def ratio(ours: Callable[..., Any], plain: Callable[..., Any], *given: Any, spend: float = 0.25) -> float:
    """Of median times of two functions that take turns."""
    times: tuple[list[float], list[float]] = ([], [])
    took = 0.0
    for call in (ours, plain):
        jax.block_until_ready(call(*given))
        start = time.perf_counter()
        jax.block_until_ready(call(*given))
        took = max(took, time.perf_counter() - start)
    inner = max(1, int(5e-4 / took))
    for _ in range(min(101, max(5, int(spend / (2 * inner * took))))):
        for call, own in zip((ours, plain), times, strict=True):
            start = time.perf_counter()
            for _ in range(inner):
                found = call(*given)
            jax.block_until_ready(found)
            own.append(time.perf_counter() - start)
    return statistics.median(times[0]) / statistics.median(times[1])


def measure_guesses(names: Iterable[str] = (), every: bool = False) -> dict[str, dict[str, dict[str, float]]]:
    """By family and size, the ratios."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for case in families(names):
        jax.config.update("jax_enable_x64", case.dtype == "float64")
        label = f"{case.size:,}" if case.batch == 1 else f"{case.size:,} × {case.batch}"
        found.setdefault(case.family, {})[label] = guesses(case, every)
        print(case.family, label, {k: round(v, 2) for k, v in found[case.family][label].items()}, flush=True)
    return found


def summary(found: dict[str, dict[str, dict[str, float]]]) -> str:
    """The worst of each family."""
    rows = []
    for family, cases in found.items():
        worst = max(
            ((value, label, what) for label, case in cases.items() for what, value in case.items()),
            default=None,
        )
        kept = [label for label, case in cases.items() if not case]
        rows.append(
            [
                family,
                f"{worst[0]:.2f} ({worst[1]}, {worst[2]})" if worst else "-",
                ", ".join(kept) or "-",
            ]
        )
    return table(rows, ["family", "worst ratio (neurons × batch, active)", "stays as it is"])


def without_kernels() -> None:
    """Go on as on a machine without numba."""
    from stategraph.backends.codegen import primitive
    from stategraph.backends.events import native

    native.bind = lambda *of, **more: None  # type: ignore[assignment]
    primitive.registered = lambda source: None  # type: ignore[assignment]
    hooks.install(platform=lambda: "cpu")


# ----------------------------------------------------------------------------------------------------------- model


def seconds(product: Callable[[Any, Any], Any], events: Any, matrix: Any) -> float:
    """Of one step of a loop over products."""

    @jax.jit
    def run(events: Any, matrix: Any) -> Any:
        def step(total: Any, own: Any) -> Any:
            return total + product(own, matrix).sum(), None

        return jax.lax.scan(step, 0.0, events)[0]

    best, spent = float("inf"), 0.0
    run(events, matrix).block_until_ready()
    while spent < 0.15:
        start = time.perf_counter()
        run(events, matrix).block_until_ready()
        took = time.perf_counter() - start
        best, spent = min(best, took), spent + took
    return best / len(events)


def measure_model() -> list[list[str]]:
    """Rows of a table: sizes, and microseconds with what the model says of each."""
    rng = np.random.default_rng(0)
    costs = TABLE[hooks.platform()]
    rows = []
    for size, batch in itertools.product((100, 256, 500, 1_000, 4_000), (1, 8, 32, 128)):
        if batch * size**2 > 5e8:
            continue
        matrix, product = jnp.asarray(rng.normal(size=(size, size)), jnp.float32), Size(batch, size, size)
        shape = (10, size) if batch == 1 else (10, batch, size)
        for rate in (0.0, 0.01, 0.1):
            events = jnp.asarray(rng.random(shape) < rate, jnp.float32)
            cells = []
            for send, model in (
                (lambda s, w: s @ w, dense_cost(costs, product)),
                (_rows(False), event_cost(costs, product, rate, False)),
                (_rows(True), event_cost(costs, product, rate, True)),
            ):
                cells.append(f"{1e6 * seconds(send, events, matrix):.1f} ({model / 1e3:.1f})")
            rows.append([f"{size:,}", str(batch), f"{rate:.0%}", *cells])
    return rows


def _rows(transposed: bool) -> Callable[[Any, Any], Any]:
    return lambda s, w: dense_product(s, w, transposed, 1.0)


if __name__ == "__main__":
    part, *words = sys.argv[1:] or ["guesses"]
    if "generic" in words:
        without_kernels()
    chosen = [word for word in words if word not in ("generic", "all")]
    if part == "model":
        header = ["neurons", "batch", "rate", "dense (model)", "rows (model)", "columns (model)"]
        print(table(measure_model(), header))
    else:
        print(summary(measure_guesses(chosen, "all" in words)))
