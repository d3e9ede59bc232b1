"""What loops that XLA runs record is what they would stack, and they compute the same bits as without it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import stategraph as sg
from stategraph import ir, nn
from stategraph.backends import reference, reference_compare
from stategraph.backends.events.compact_primitive import compact
from stategraph.backends.events.list_primitive import append_p, list_p
from stategraph.passes import DEFAULT
from stategraph.passes.context import Context
from stategraph.passes.outline_recording import OutlineRecording

WITHOUT = ",".join(name for name in DEFAULT if name != "outline-recording")
pytestmark = pytest.mark.for_cpus


def kernels(lowered: Any) -> list[Any]:
    return list(lowered.program.walk("native.kernel"))


def assert_lists(found: Any, dense: Any) -> None:
    """What comes after the places is unspecified."""
    found, places = np.asarray(found), np.flatnonzero(dense)
    assert found.dtype == np.int32 and found.shape == (1 + np.size(dense),)
    assert found[0] == len(places)
    np.testing.assert_array_equal(found[1 : 1 + len(places)], places)


# -------------------------------------------------------------------------------------------------------- lists

STEPS = 9
SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-44, -1e-44, -1e-38, 1.0, -1.0, 3e38]


def stacks(kind: str) -> Any:
    """A loop over numbers of a kind, in every way in which truth values come about: carry, and what is stacked."""
    dtype = jnp.dtype(kind)

    def loop(v: Any, w: Any) -> Any:
        def step(v: Any, t: Any) -> Any:
            sent = v >= 1
            v = v + (w - v * sent) * jnp.asarray(0.25, dtype)
            return v, {
                "sign": (v - 1) / 3 >= 0,  # computed by the kernel
                "old": sent,  # of what the step began with
                "product": v * w - 1 > 0,  # of a product that may be rounded: left to XLA
                "same": v.reshape(-1, 1) != w.reshape(-1, 1),
                "quotient": v / 3 >= 0.2,
                "sums": (v + 1e6) - 1e6 > 0.3,  # v > 0.3 for XLA
                "shorter": v.astype(jnp.float16).astype(jnp.float32) > 0.3,  # and so for floats
                "step": jnp.broadcast_to(t % 3 == 1, v.shape),
                "outer": jnp.isnan(w),
                "some": jnp.isfinite(v)[::2] & (t > 2),
                "one": v[0] < 1,
            }

        return lax.scan(step, v, jnp.arange(STEPS, dtype=jnp.int32))

    return loop


@pytest.mark.parametrize("kind", ["float32", "float16", "int32"])
def test_lists_are_those_of_the_stacks(kind: str) -> None:
    pytest.importorskip("llvmlite")
    rng = np.random.default_rng(0)
    v, w = rng.normal(0, 2, (2, 1300))
    if kind == "float32":
        v[: len(SPECIAL)], w[: len(SPECIAL)] = SPECIAL, SPECIAL[::-1]
    v, w = (jnp.asarray(x, kind) for x in (v, w))
    loop = stacks(kind)

    def listed(v: Any, w: Any) -> Any:
        last, found = loop(v, w)
        return last, {name: compact(stack) for name, stack in found.items()}

    lowered = sg.trace(listed, v, w).lower()
    assert len(kernels(lowered)) == 1
    last, found = lowered.compile()(v, w)
    plain, dense = sg.trace(loop, v, w).lower().compile()(v, w)
    np.testing.assert_array_equal(np.asarray(last), np.asarray(plain))
    for name, stack in dense.items():
        assert_lists(found[name], stack)


def test_what_cannot_be_listed_step_by_step_is_listed_afterwards() -> None:
    x = jnp.linspace(0, 40, 600)

    def stack(steps: int, reverse: bool = False) -> Any:
        return lax.scan(lambda c, t: (c * 0.5, c > t), x, jnp.arange(float(steps)), reverse=reverse)[1]

    def needed() -> Any:
        stacked = stack(6)
        return compact(stacked), stacked

    cases = [
        (lambda: compact(stack(6, True)), stack(6, True)),
        (lambda: compact(stack(1)), stack(1)),
        (needed, stack(6)),
    ]
    for function, dense in cases:
        lowered = sg.trace(function).lower()
        assert not kernels(lowered)
        assert_lists(jax.tree.leaves(lowered.compile()())[0], dense)


def test_the_ops_of_lists_mean_what_they_say() -> None:
    """Also where there are no kernels, in the interpreter, and as text."""

    def function(a: Any, b: Any) -> Any:
        listed = append_p.bind(list_p.bind(room=20, number=0), a, jnp.int32(5))
        return append_p.bind(listed, b, jnp.int32(100))

    a, b = np.arange(6).reshape(2, 3) % 2 == 1, np.array([True, False, True])
    wanted = [5, 6, 8, 10, 100, 102]
    lowered = sg.trace(function, a, b).lower(passes="dce")
    assert ir.parse(str(lowered.program)) == lowered.program
    (interpreted,), _ = reference.run(lowered.program, [a, b], {})
    for found in (lowered.compile()(a, b), jax.jit(function)(a, b), interpreted):
        np.testing.assert_array_equal(np.asarray(found)[:6], wanted)
        assert found.shape == (21,)
    with pytest.raises(TypeError, match="not of float32"):
        append_p.bind(jnp.zeros(9, jnp.int32), jnp.zeros(3), jnp.int32(0))
    for name, message in (
        ("event.list", "with room for 20 it is"),
        ("event.append", "has the type of the list"),
    ):
        program = sg.trace(function, a, b).lower(passes="dce").program
        op = next(program.walk(name))
        op.results[0].type = next(program.walk("event.append")).operands[1].type
        with pytest.raises(ir.VerifyError, match=message):
            ir.verify(program)


# ------------------------------------------------------------------------------------------------------- in runs

MODELS = {
    "LIFRef": lambda: nn.LIFRef((20, 30), tau=20.0, tau_ref=2.0),
    "ALIF": lambda: nn.ALIF(600),
    "HH": lambda: nn.HH(600),
}


@pytest.mark.parametrize("name", MODELS)
def test_recording_changes_no_bit_of_a_simulation(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("llvmlite")

    def run(*monitors: str, steps: int = 307) -> Any:
        sg.random.seed(1)
        net = nn.init_all_states(MODELS[name]())
        x = jnp.linspace(0.9, 1.3, 600).reshape(net.V.value.shape) * (10 if name == "HH" else 1)
        known = {
            "spk": net.spike,
            "again": net.spike,
            "some": (net.spike, (..., [3, 1])),
            "V": net.V,
            "few": (net.V, slice(1, 4), 7),
            "mean": lambda: net.V.value.mean(),
        }
        rec = nn.run(
            net, steps * 0.1, lambda t: x * (1 + t / 100), {one: known[one] for one in monitors}, dt=0.1
        )
        return rec, [np.asarray(state.value) for state in sg.graph.states(net).values()]

    rec, after = run("spk", "again", "some", "V", "few", "mean")
    _, alone = run()
    spikes, listed = run("spk")
    monkeypatch.setattr(OutlineRecording, "run", lambda *args: None)
    wanted, stacked = run("spk", "again", "some", "V", "few", "mean")
    assert len(rec["spk"]) > 5
    for which, found in dict(after=after, listed=listed, stacked=stacked).items():
        for a, b in zip(found, alone, strict=True):
            np.testing.assert_array_equal(a, b, err_msg=which)
    for one in ("spk", "again", "some"):
        np.testing.assert_array_equal(rec[one].dense, wanted[one].dense)
    np.testing.assert_array_equal(spikes["spk"].dense, wanted["spk"].dense)
    for one in ("V", "few", "mean"):
        np.testing.assert_array_equal(rec[one], wanted[one])


def test_a_loop_that_records_nothing_for_later_is_left_alone() -> None:
    """Rows of every step are XLA's, and so is room that a loop reads too."""

    def writes(room: Any, v: Any) -> Any:
        def step(carry: Any, i: Any) -> Any:
            room, v = carry
            return (room.at[jnp.where(i % 2 == 0, i, 9)].set(v, mode="drop"), v * 0.5), room[0].sum()

        return lax.scan(step, (room, v), jnp.arange(8, dtype=jnp.int32))

    def every(room: Any, v: Any) -> Any:
        def step(carry: Any, i: Any) -> Any:
            room, v = carry
            return (lax.dynamic_update_index_in_dim(room, v, i, 0), v * 0.5), None

        return lax.scan(step, (room, v), jnp.arange(8))[0]

    room, v = jnp.zeros((8, 600)), jnp.arange(600.0)
    for function in (writes, every):
        lowered = sg.trace(function, room, v).lower()
        assert not kernels(lowered)
        for a, b in zip(
            jax.tree.leaves(lowered.compile()(room, v)), jax.tree.leaves(function(room, v)), strict=True
        ):
            np.testing.assert_array_equal(a, b)


def test_rows_that_are_wanted_now_and_then_are_written_by_a_kernel() -> None:
    pytest.importorskip("llvmlite")

    def function(room: Any, steps: Any, v: Any, w: Any) -> Any:
        def step(carry: Any, i: Any) -> Any:
            room, steps, v, w = carry
            v, w = v * 0.75 + 1, w + v
            row = jnp.where(i % 3 == 0, i // 3, 3)
            room = room.at[row].set(v[1:4], mode="drop")
            return (room, steps.at[row].set(i, mode="drop"), v, w), None

        return lax.scan(step, (room, steps, v, w), jnp.arange(8, dtype=jnp.int32))[0]

    given = jnp.zeros((3, 3)), jnp.zeros(3, jnp.int32), jnp.arange(600.0), jnp.ones(600)
    lowered = sg.trace(function, *given).lower()
    (kernel,) = kernels(lowered)
    assert len(kernel.attributes["aliases"]) == 3  # two rooms, and the number of the step
    for a, b in zip(lowered.compile()(*given), function(*given), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_is_recorded_is_what_the_interpreter_records() -> None:
    def function(room: Any, v: Any) -> Any:
        def step(carry: Any, i: Any) -> Any:
            room, v = carry
            v = v * 0.5 + 1  # exact
            room = room.at[jnp.where(i % 3 == 0, i // 3, 3)].set(v[1:4], mode="drop")
            return (room, v), ((v - 1.5) / 2 >= 0, v > 1.75)

        (room, v), (some, few) = lax.scan(step, (room, v), jnp.arange(4, dtype=jnp.int32))
        return room, v, compact(some), compact(few)

    given = jnp.zeros((3, 3)), jnp.arange(600.0)
    before, after = (
        sg.trace(function, *given).lower(passes=passes).program for passes in (WITHOUT, "default")
    )
    reference_compare.validate(before, after, exactness="exact", samples=1)
    for a, b in zip(*(reference.run(program, given, {})[0] for program in (before, after)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_elsewhere_nothing_changes() -> None:
    def function(x: Any) -> Any:
        return compact(lax.scan(lambda c, t: (c * 0.5, c > t), x, jnp.arange(6.0))[1])

    for platform in ("cpu", "gpu", "tpu"):
        program = sg.trace(function, jnp.ones(600)).lower(passes=WITHOUT).program
        OutlineRecording().run(program, Context(program, platform=platform))
        assert next(program.walk("event.compact"), None) is not None
