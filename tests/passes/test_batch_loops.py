"""Products leave loops, and programs compute what they did: random loops, and training steps against plain JAX."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import ir
from stategraph.backends.events.primitives import dense_product
from stategraph.passes import DEFAULT, Verify, run_passes
from stategraph.tracing.tracer import trace_function
from tests.support import execute_both, program

ALL = "batch-loops{stack_price=0}"
"""Everything that can be moved is."""
EAGER = {"batch-loops": ALL, "derive-outputs": "derive-outputs{min_bytes=0}"}
EVERYWHERE = ",".join(EAGER.get(name, name) for name in DEFAULT)
N = 3


def normal(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def random_loop(seed: int) -> tuple[Callable[..., Any], tuple[Any, ...], str]:
    """A scan of random ops on matrices, or its gradient, with arguments. Carries take all, some or none of it."""
    rng = random.Random(seed)
    weights = [normal(seed * 10 + i, N, N) for i in range(4)]
    count, reverse = rng.randrange(4), rng.random() < 0.4
    steps = [
        (rng.choice(list(OPS)), rng.randrange(99), rng.randrange(99)) for _ in range(rng.randrange(4, 14))
    ]
    outputs = [rng.randrange(99) for _ in range(rng.randrange(4))]
    updates = [(rng.randrange(99), rng.choice(list(UPDATES))) for _ in range(count)]

    def body(carry: Any, x: Any) -> Any:
        pool = [x, *carry, x * 1.0]
        for name, a, b in steps:
            pool.append(OPS[name](pool[a % len(pool)], pool[b % len(pool)], weights[a % 4]))
        values = [pool[i % len(pool)] for i, _ in updates]
        others = [pool[(i + 3) % len(pool)] for i, _ in updates]
        new = [UPDATES[how](*v) for (_, how), *v in zip(updates, carry, values, others, strict=True)]
        return tuple(new), tuple(pool[i % len(pool)] for i in outputs)

    def loop(init: Any, xs: Any) -> Any:
        return jax.lax.scan(body, tuple(init[:count]), xs, reverse=reverse)

    def loss(init: Any, xs: Any) -> Any:
        leaves = jax.tree.leaves(loop(init, xs))
        return sum((jnp.tanh(leaf).sum() for leaf in leaves), jnp.zeros(()))

    arguments = ([0.5 * w for w in weights], normal(seed, rng.choice([2, 4]), N, N))
    return (jax.grad(loss, argnums=(0, 1)) if rng.random() < 0.5 else loop), arguments, f"seed {seed}"


OPS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "product": lambda a, b, w: a @ w,
    "left product": lambda a, b, w: w @ a,
    "vector": lambda a, b, w: (a[0] @ w)[None] + a,
    "left vector": lambda a, b, w: (w @ a[:, 0])[:, None] + a,
    "both move": lambda a, b, w: a @ b,
    "batch axes": lambda a, b, w: jnp.einsum("bi,bij->bj", a, w[:, :, None] * jnp.ones(N)),
    "outer": lambda a, b, w: jnp.outer(a[0], b[:, 1]),
    "concatenated": lambda a, b, w: jnp.concatenate([a, w], 1) @ jnp.concatenate([w, w], 0),
    "tanh": lambda a, b, w: jnp.tanh(a),
    "add": lambda a, b, w: a + b,
    "mul": lambda a, b, w: a * b,
    "number": lambda a, b, w: a * b[0, 0],
    "sum": lambda a, b, w: a.sum(1, keepdims=True) + b,
    "transpose": lambda a, b, w: a.T,
    "binary": lambda a, b, w: (a > 0).astype(a.dtype),
    "events": lambda a, b, w: dense_product(a > 0, w, threshold=0.5),
    "turned events": lambda a, b, w: dense_product(a, w, transposed=True, threshold=0.5),
    "one event": lambda a, b, w: dense_product(a[0], w, threshold=0.5)[None] + a,
    "moving matrix": lambda a, b, w: dense_product(a, b, threshold=0.5),
    "weight": lambda a, b, w: a + w,
    "turned": lambda a, b, w: jnp.concatenate([a[1:], a[:1]], 0),
    "branch": lambda a, b, w: jax.lax.cond(a[0, 0] > 0, lambda: a @ w, lambda: b),
}
UPDATES: dict[str, Callable[[Any, Any, Any], Any]] = {
    "last": lambda old, new, other: new,
    "leaky": lambda old, new, other: 0.5 * old + new,
    "sum": lambda old, new, other: old + other.T @ new,
    "kept": lambda old, new, other: old,
}


@pytest.mark.parametrize("first", range(0, 16, 4))
def test_random_loops_compute_what_they_did(first: int) -> None:
    moved = 0
    for seed in range(first, first + 4):
        function, arguments, label = random_loop(seed)
        before = run_passes(trace_function(function, arguments, {}).program, "inline-calls,cse,licm").program
        outcome = run_passes(before, ALL, instruments=[Verify()], exactness="fast-math")
        cleaned = run_passes(
            outcome.program, f"simplify-loops,{EAGER['derive-outputs']},dce", instruments=[Verify()]
        ).program
        moved += sum(e.numbers.get("products", 0) for e in outcome.explanations)  # type: ignore[misc]
        for after in (outcome.program, cleaned):
            try:
                execute_both(before, after, exactness="fast-math", samples=1, seed=seed)
            except Exception as error:
                error.add_note(f"{label}\n{before}\n{after}")
                raise
    assert moved > 2


# ----------------------------------------------------------------------------------------------- training steps

HIDDEN, INPUTS, BATCH, LENGTH = 5, 4, 3, 6


@jax.custom_vjp
def spike(v: Any) -> Any:
    return (v >= 0).astype(v.dtype)


spike.defvjp(lambda v: (spike(v), v), lambda v, g: (g / (1 + 10 * jnp.abs(v)) ** 2,))


def lstm(p: Any, carry: Any, x: Any) -> Any:
    c, h = carry
    i, f, g, o = jnp.split(x @ p["in"] + h @ p["rec"] + p["bias"], 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    h = jax.nn.sigmoid(o) * jnp.tanh(c)
    return (c, h), h @ p["out"]


def rnn(p: Any, carry: Any, x: Any) -> Any:
    h = jnp.tanh(x @ p["in"][:, :HIDDEN] + carry[0] @ p["rec"][:, :HIDDEN])
    return (h, carry[1]), h @ p["out"]


def snn(p: Any, carry: Any, x: Any) -> Any:
    v, z = carry
    v = 0.9 * v + x @ p["in"][:, :HIDDEN] + z @ p["rec"][:, :HIDDEN] - z
    z = spike(v - 0.3)
    return (v, z), z @ p["out"]


def parameters() -> dict[str, jax.Array]:
    shapes = {
        "in": (INPUTS, 4 * HIDDEN),
        "rec": (HIDDEN, 4 * HIDDEN),
        "out": (HIDDEN, 2),
        "bias": (4 * HIDDEN,),
    }
    return {name: 0.7 * normal(i, *shape) for i, (name, shape) in enumerate(shapes.items())}


@pytest.mark.core
@pytest.mark.parametrize("cell", [rnn, lstm, snn])
@pytest.mark.parametrize("memory", [False, True], ids=["readout", "leaky readout"])
def test_gradients_of_recurrent_networks_are_those_of_plain_jax(cell: Any, memory: bool) -> None:
    """A readout with a memory is a recurrence that another one feeds: its loop is split."""
    xs, zero = normal(9, LENGTH, BATCH, INPUTS), jnp.zeros((BATCH, HIDDEN))

    def read(m: Any, y: Any) -> Any:
        return (0.8 * m + y) if memory else y

    def plain(p: Any) -> Any:
        def step(carry: Any, x: Any) -> Any:
            inner, y = cell(p, carry[:2], x)
            m = read(carry[2], y)
            return (*inner, m), m

        return (jax.lax.scan(step, (zero, zero, jnp.zeros((BATCH, 2))), xs)[1] ** 2).mean()

    params = {name: sg.ParamState(value) for name, value in parameters().items()}
    a, b, m = sg.HiddenState(zero), sg.HiddenState(zero), sg.HiddenState(jnp.zeros((BATCH, 2)))

    def stateful() -> Any:
        a.value, b.value, m.value = zero, zero, jnp.zeros((BATCH, 2))

        def step(x: Any) -> Any:
            (a.value, b.value), y = cell({k: p.value for k, p in params.items()}, (a.value, b.value), x)
            m.value = read(m.value, y)
            return m.value

        return (sg.compile.for_loop(step, xs) ** 2).mean()

    ours = sg.compile.jit(lambda: sg.augment.grad(stateful, params)(), passes=EVERYWHERE)
    expected = jax.jit(jax.grad(plain))(parameters())
    for name, gradient in ours().items():
        np.testing.assert_allclose(gradient, expected[name], rtol=2e-5, atol=1e-6, err_msg=name)
    reports = [e.numbers for e in ours.lower().explain() if e.pass_name == "batch-loops"]
    loops = [numbers["loops"] for numbers in reports if "loops" in numbers]
    assert loops == ([2, 2] if memory else [1, 1])
    assert products_in_loops(ours.lower().program) == 2  # with the recurrent weights, forwards and backwards


# ------------------------------------------------------------------------------------------------ what stays put


def batched(
    function: Callable[..., Any], *arguments: Any, passes: str = EVERYWHERE, **options: Any
) -> ir.Program:
    before = trace_function(function, arguments, {}).program
    return run_passes(before, passes, instruments=[Verify()], **options).program


def products_in_loops(found: ir.Program) -> int:
    return len({op for loop in found.walk("flow.scan") for op in loop.walk("jax.dot_general")})


def each(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda xs: jax.lax.map(function, xs)


W = normal(0, INPUTS, 2)


def test_all_steps_of_a_loop_without_carries_are_one_product() -> None:
    found = batched(each(lambda x: jnp.maximum(x @ W, 0.0)), normal(1, LENGTH, BATCH, INPUTS))
    assert not list(found.walk("flow.scan"))


@pytest.mark.parametrize("length", [0, 1])
def test_loops_of_no_or_one_step_stay(length: int) -> None:
    xs = normal(1, length, BATCH, INPUTS)
    before = trace_function(each(lambda x: x @ W), (xs,), {}).program
    assert run_passes(before, ALL).program == before


def test_what_is_rematerialised_stays() -> None:
    def loss(xs: Any) -> Any:
        @jax.checkpoint
        def chunk(c: Any, xs: Any) -> Any:
            return jax.lax.scan(lambda c, x: (jnp.tanh(c + x @ W), None), c, xs)[0]

        return jax.lax.scan(lambda c, xs: (chunk(c, xs), None), jnp.zeros((BATCH, 2)), xs)[0].sum()

    found = batched(loss, normal(1, 2, LENGTH, BATCH, INPUTS))
    assert products_in_loops(found) == 1


def test_the_order_of_a_sum_that_the_user_wrote_is_kept_unless_all_is_allowed() -> None:
    def total(xs: Any) -> Any:
        return jax.lax.scan(
            lambda acc, x: (acc + jnp.einsum("bi,bj->ij", x, x), None), jnp.ones((INPUTS, INPUTS)), xs
        )[0]

    xs = normal(1, LENGTH, BATCH, INPUTS)
    assert products_in_loops(batched(total, xs)) == 1
    assert products_in_loops(batched(total, xs, exactness="fast-math")) == 0


def test_bodies_that_are_still_to_be_differentiated_stay() -> None:
    weight = sg.ParamState(W)

    def loss(xs: Any) -> Any:
        return sg.compile.for_loop(lambda x: x @ weight.value, xs).sum()

    def step(xs: Any) -> Any:
        return sg.augment.grad(loss, weight)(xs)

    found = batched(step, normal(1, LENGTH, BATCH, INPUTS), passes=f"hoist-state,{ALL}")
    assert products_in_loops(found) == 1


def test_decisions_are_explained() -> None:
    def loop(xs: Any) -> Any:
        return jax.lax.scan(lambda c, x: (c * (x @ jnp.ones((8, 512))), None), jnp.ones((64, 512)), xs)[0]

    before = trace_function(loop, (normal(1, 5, 64, 8),), {}).program
    before = run_passes(before, "licm").program
    (kept,) = run_passes(before, "batch-loops").explanations
    assert "stays in the loop" in str(kept) and "ns per step" in kept.reason and "stack_price" in kept.advice
    (bound,) = run_passes(before, "batch-loops{stack_price=0 max_bytes=1000}").explanations
    assert bound.reason == "655360 bytes would be stacked, more than max_bytes=1000"
    (moved,) = run_passes(before, ALL).explanations
    assert moved.numbers == {"products": 1, "loops": 1, "stacked_bytes": 655360}


def test_keys_and_loops_inside_pass_from_loop_to_loop() -> None:
    def loop(xs: Any, key: Any) -> Any:
        def step(carry: Any, x: Any) -> Any:
            key, total = carry
            key, one = jax.random.split(key)
            noise = jax.random.normal(one, (BATCH, INPUTS))
            few = jax.lax.fori_loop(0, 3, lambda i, v: v * 0.5 + x[0, 0], noise)
            total = 0.9 * total + few @ W
            return (key, total), total

        return jax.lax.scan(step, (key, jnp.zeros((BATCH, 2))), xs)[1]

    arguments = (normal(1, LENGTH, BATCH, INPUTS), jax.random.key(0))
    before = run_passes(trace_function(loop, arguments, {}).program, "inline-calls").program
    after = run_passes(before, ALL, instruments=[Verify()]).program
    assert products_in_loops(after) == 0 and len(list(after.body.ops)) > len(list(before.body.ops))
    execute_both(before, after, exactness="reduction-order", samples=1)


def test_the_last_value_of_a_readout_is_taken_from_all_of_them() -> None:
    product = (
        "jax.dot_general %x, %w {dimension_numbers = (((1,), (0,)), ((), ())), out_sharding = none, "
        "precision = none, preferred_element_type = f32} : f32[2,4]"
    )
    before = program(f"""
    program @p(%xs : f32[5,2,8], %w : f32[8,4], %y0 : f32[2,4]) -> (out : f32[2,4]) {{
      %last = flow.scan [length = 5, reverse = true] carry(%y = %y0 : f32[2,4]) xs(%x = %xs : f32[2,8]) : f32[2,4] {{
        %i = {product}
        flow.yield %i
      }}
      flow.yield %last
    }}
    """)
    after = run_passes(before, ALL, instruments=[Verify()]).program
    assert not list(after.walk("flow.scan"))
    execute_both(before, after, exactness="reduction-order")
