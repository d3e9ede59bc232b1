"""Run by ``test_loops.py`` in a process with several devices: event products in ``jax.shard_map`` and in ours.

What all devices share and what each has of its own meet in these products, in every combination; JAX has to know which
results differ between devices, and over what to sum derivatives. Oracles: one device after another, and the same program
in plain JAX, whose products are ordinary ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import attrs
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, PartitionSpec

import stategraph as sg
import stategraph.augment
import stategraph.compile
from stategraph import event, init
from stategraph.backends.events.change_primitive import csr_change
from stategraph.backends.events.compact_primitive import compact
from stategraph.backends.events.jit_primitive import jit_product
from stategraph.backends.events.primitives import (
    csr_add,
    csr_outer,
    csr_outer_add,
    csr_product,
    dense_product,
)
from stategraph.backends.events.ring_primitive import csr_ring
from stategraph.passes import DEFAULT
from tests.passes.entry_cases import differs

P = PartitionSpec
DEVICES = 4
PRE, POST = 12, 8
CSR = event.fixed_number(PRE, POST, 3, seed=0)
LIST = (CSR.indptr, CSR.indices)
ONES = jnp.ones(CSR.size)
LAW = {"shape": CSR.shape, "low": 0.0, "high": 1.0, "mu": 0.0, "up": True}
MADE = {"shape": CSR.shape, "prob": 0.5, "law": "one", "include_self": True, "transposed": False}
SEED = jnp.array([1, 2], jnp.uint32)
PIPELINE = ",".join(DEFAULT).replace("rewrite-events", "rewrite-events{mode=always}")


def mesh(kind: AxisType = AxisType.Auto) -> Mesh:
    return Mesh(np.array(jax.devices()[:DEVICES]), ("i",), axis_types=(kind,))


def drawn(seed: int, *shape: int) -> Any:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


# ------------------------------------------------------------------------------------------------- the operations

BOTH = jnp.where(drawn(0, DEVICES, PRE) > 0, drawn(1, DEVICES, PRE), 0)
"""Events of each device."""
WEIGHTS = drawn(2, DEVICES, CSR.size)
MATRICES = drawn(3, DEVICES, PRE, POST)

OPERATIONS: dict[str, tuple[Callable[[Any, Any], Any], Any, Any]] = {
    "csr": (lambda e, w: csr_product(e, w, *LIST, CSR.shape), BOTH, WEIGHTS),
    "csr, back": (lambda e, w: csr_product(e, w, *LIST, CSR.shape, True), BOTH[:, :POST], WEIGHTS),
    "csr, one weight": (lambda e, w: csr_product(e, w, *LIST, CSR.shape), BOTH, WEIGHTS[:, 0]),
    "csr, a batch": (lambda e, w: csr_product(jnp.stack([e, 2 * e]), w, *LIST, CSR.shape), BOTH, WEIGHTS),
    "csr_add": (lambda e, t: csr_add(t, e, ONES, *LIST, CSR.shape), BOTH, WEIGHTS[:, :POST]),
    "csr_outer": (lambda e, y: csr_outer(e, y, *LIST, CSR.shape), BOTH, WEIGHTS[:, :POST]),
    "csr_outer_add": (lambda e, t: csr_outer_add(t, e, ONES[:POST], *LIST, CSR.shape), BOTH, WEIGHTS),
    "csr_ring": (lambda e, t: csr_ring(t, e, ONES, *LIST, jnp.int32(2), CSR.shape), BOTH, WEIGHTS[:, :10]),
    "csr_change": (lambda e, w: csr_change(w, e, ONES[:POST], ONES[0] / 9, *LIST, **LAW), BOTH, WEIGHTS),
    "dense": (lambda e, w: dense_product(e, w), BOTH, MATRICES),
    "dense, large": (
        lambda e, w: dense_product(jnp.tile(e, 10), jnp.tile(w, (10, 10)), threshold=0.9),
        BOTH,
        MATRICES,
    ),
    "jit": (lambda e, w: jit_product(e, w, SEED, **MADE), BOTH, WEIGHTS[:, 0]),
    "compact": (lambda e, w: compact((e > 0) & (w > 0))[:1].astype(jnp.float32), BOTH, WEIGHTS[:, :PRE]),
}
VARYING = [(True, True), (True, False), (False, True)]


@attrs.frozen
class Case:
    """An operation of which each device has its own first or second operand, or both."""

    function: Callable[[Any, Any], Any]
    operands: tuple[Any, Any]
    varying: tuple[bool, bool]

    @property
    def given(self) -> tuple[Any, ...]:
        return tuple(x if own else x[0] for x, own in zip(self.operands, self.varying, strict=True))

    @property
    def specs(self) -> tuple[Any, ...]:
        return tuple(P("i") if own else P() for own in self.varying)

    def taken(self, given: Any) -> list[Any]:
        return [x[0] if own else x for x, own in zip(given, self.varying, strict=True)]

    def on_device(self, *given: Any) -> Any:
        return self.function(*self.taken(given))[None]

    def slopes(self, *given: Any) -> Any:
        """On each device, with what all share summed over devices."""
        found = jax.grad(lambda *x: (self.function(*x) ** 2).sum(), (0, 1))(*self.taken(given))
        return tuple(x[None] if own else x for x, own in zip(found, self.varying, strict=True))

    def one_by_one(self, *given: Any) -> Any:
        each = [
            self.function(*(x[k] if own else x for x, own in zip(given, self.varying, strict=True)))
            for k in range(DEVICES)
        ]
        return jnp.stack(each)


@pytest.mark.parametrize(
    ("name", "check_vma"), [*((name, True) for name in OPERATIONS), ("csr", False), ("dense, large", False)]
)
def test_what_devices_share_and_what_each_has_meet_in_a_product(name: str, check_vma: bool) -> None:
    function, *operands = OPERATIONS[name]
    cases = [Case(function, tuple(operands), varying) for varying in VARYING]  # type: ignore[arg-type]

    def shards(case: Case, body: Any, out_specs: Any) -> Any:
        return jax.shard_map(body, mesh=mesh(), in_specs=case.specs, out_specs=out_specs, check_vma=check_vma)

    def run(many: Any) -> Any:
        found = []
        for case, given in zip(cases, many, strict=True):
            mapped = shards(case, case.on_device, P("i"))
            outside = jax.grad(lambda x, mapped=mapped: (mapped(*x) ** 2).sum())(given)
            inside = shards(case, case.slopes, case.specs)(*given) if check_vma else outside
            found.append((mapped(*given), outside, inside))
        return found

    wanted = []
    for case in cases:
        slopes = jax.grad(lambda x, case=case: (case.one_by_one(*x) ** 2).sum())(case.given)
        wanted.append((case.one_by_one(*case.given), slopes, slopes))
        if check_vma and name == "csr":
            with pytest.raises(ValueError, match="out_specs"):  # devices may have other results
                jax.eval_shape(shards(case, case.on_device, P()), *case.given)
    found = jax.jit(run)([case.given for case in cases])
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


# --------------------------------------------------------------------------------------------- networks over shards

N, M = 72, 60
OWN, WHOLE = N // DEVICES, M // DEVICES
LOCAL = event.FixedProb(OWN, M, 0.3, init.Uniform(0.5, 1.5, seed=0), seed=1)
GATHERED = event.FixedProb(N, WHOLE, 0.3, init.Uniform(0.5, 1.5, seed=0), seed=2)
DENSE, MANY = event.Linear(OWN, M, init.Normal(0.0, 1.0, seed=3)), event.JITConn(OWN, M, 0.2, 0.3, seed=4)
MATRIX = drawn(5, N, M)
OF_LOCAL, OF_GATHERED = LOCAL.todense(), GATHERED.todense()
OF_DENSE, OF_MANY = DENSE.todense(), MANY.todense()
NEXT = [(k, k + 1) for k in range(DEVICES - 1)]


def sums(s: Any, w: Any, conn: Callable[[Any, Any], Any]) -> dict[str, Any]:
    """Products of the spikes of a device, and of what devices tell each other of these; ``conn`` chooses a connection or
    its matrix. The same on all devices.
    """
    gathered, total = jax.lax.all_gather(s, "i", tiled=True), jax.lax.psum(s, "i")
    counted, index = jax.lax.psum(s > 0, "i"), jax.lax.axis_index("i")
    other = jax.lax.ppermute(s, "i", NEXT)
    rows = jnp.where(gathered[:OWN, None] > 0, w, 0).sum(0)
    found = {
        "by pre": s @ w,
        "of counts": counted.astype(jnp.float32) @ w,
        "of sums": total @ w,
        "rows of sums": (total[:, None].astype(jnp.int32).astype(jnp.float32) * w).sum(0),
        "of neighbours": other @ w,
        "of the largest": jax.lax.pmax(s, "i") @ w,
        "of the smallest": jax.lax.pmin(s, "i") @ w,
        "by number": (s * index) @ w + jnp.where(s > 0, index, 0).astype(jnp.float32) @ w,
        "rows": rows,
        "exchanged": jax.lax.all_to_all(s[: 4 * (OWN // 4)], "i", 0, 0, tiled=True) @ w[: 4 * (OWN // 4)],
        "sparse": s @ conn(LOCAL, OF_LOCAL),
        "sparse, of sums": total @ conn(LOCAL, OF_LOCAL),
        "dense": jnp.stack([s, 2 * s]) @ conn(DENSE, OF_DENSE),
        "made": s @ conn(MANY, OF_MANY),
        "mapped": jax.vmap(lambda row: row @ w)(jnp.stack([s, s * total])),
        "pinned": event.declare(s, use="events") @ w,
    }
    found = {name: jax.lax.psum(y, "i") for name, y in found.items()}
    scattered = jax.lax.psum_scatter(s @ w, "i", tiled=True)
    by_post = gathered @ conn(GATHERED, OF_GATHERED)
    for name, y in {"scattered": scattered, "by post": by_post}.items():
        found[name] = jax.lax.psum((index + 1) * y, "i")
    return found


def entries() -> dict[str, np.ndarray]:
    spikes = np.asarray(drawn(6, N) > 1, np.float32)

    def put(*values: float) -> np.ndarray:
        found = spikes.copy()
        found[: 9 * len(values) : 9] = values
        return found

    return {
        "spikes": spikes,
        "halves": put(0.5, 0.25, 2.0),
        "minus zero": -0.0 * spikes,
        "all": np.ones(N, np.float32),
        "infinite": put(np.inf),
        "both infinities and nothing": put(np.inf, -np.inf, np.nan),
    }


WAYS = [
    ("jax", AxisType.Auto, True),
    ("jax", AxisType.Auto, False),
    ("sharded State", AxisType.Explicit, True),
]


@pytest.mark.parametrize(("way", "kind", "check_vma"), WAYS, ids=lambda given: str(given))
def test_networks_over_shards(way: str, kind: AxisType, check_vma: bool) -> None:
    xs = drawn(7, 3, N)
    spike = sg.HiddenState(jnp.zeros(N))

    def fired(x: Any) -> Any:
        return sg.surrogate.sigmoid(x)

    def on_device(s: Any, w: Any) -> dict[str, Any]:
        return sums(s, w, lambda layer, matrix: layer)

    def step_in_jax(x: Any) -> Any:
        over = jax.shard_map(
            on_device, mesh=mesh(kind), in_specs=(P("i"), P("i")), out_specs=P(), check_vma=check_vma
        )
        found = over(spike.value, MATRIX)
        spike.value = fired(x)
        return found

    def step_on_device(x: Any, w: Any) -> Any:
        found = on_device(spike.value, w)
        spike.value = fired(x)
        return found

    step = (
        step_in_jax
        if way == "jax"
        else lambda x: sg.augment.shard_map(
            step_on_device, mesh(kind), (P("i"), P("i")), P(), {spike: P("i")}
        )(x, MATRIX)
    )
    run = sg.compile.jit(lambda xs: sg.compile.for_loop(step, xs), passes=PIPELINE)
    plain = jax.jit(
        jax.shard_map(
            lambda s, w: sums(s, w, lambda layer, matrix: matrix),
            mesh=mesh(),
            in_specs=(P("i"), P("i")),
            out_specs=P(),
        )
    )
    rest = [plain(jnp.asarray(x > 0, jnp.float32), MATRIX) for x in xs[:-1]]
    problems = []
    for name, entry in entries().items():
        spike.value = jnp.asarray(entry)
        found = run(xs)
        np.testing.assert_array_equal(spike.value, xs[-1] > 0)
        wanted = [plain(jnp.asarray(entry), MATRIX), *rest]
        for form, t in itertools.product(found, range(len(xs))):
            if not np.isfinite(entry).all() and t == 0 and form in SPREADING:
                continue
            difference = differs(found[form][t], wanted[t][form])
            if difference:
                problems.append(f"{form}, step {t}, {name}: {difference}")
    assert not problems, "\n".join(problems)


SPREADING = ("sparse", "sparse, of sums", "made", "by post")
"""Products whose dense form spreads what is not finite to where there is no synapse."""
