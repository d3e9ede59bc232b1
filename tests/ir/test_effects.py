"""Effects: declared per op, gathered over regions; unknown means unsafe."""

import pytest

from stategraph import ir
from stategraph.ir import Constant, Effect, Op, Program, Region, conflicts
from stategraph.ir.effects import UNKNOWN

READ, WRITE, OTHER = Effect("read", "s"), Effect("write", "s"), Effect("write", "t")
HOST, ORDERED = ir.HOST_EFFECT, ir.ORDERED_HOST_EFFECT


@pytest.mark.parametrize(
    ("a", "b", "conflict"),
    [
        (READ, READ, False),
        (READ, WRITE, True),
        (WRITE, WRITE, True),
        (WRITE, OTHER, False),
        (Effect("alloc", "s"), READ, True),
        (HOST, WRITE, False),
        (HOST, ORDERED, True),
        (UNKNOWN, READ, True),
        (UNKNOWN, HOST, True),
    ],
)
def test_conflicts_are_symmetric(a: Effect, b: Effect, conflict: bool) -> None:
    assert conflicts(a, b) is conflicts(b, a) is conflict


def test_a_region_op_has_the_effects_of_its_regions(step: Program) -> None:
    scan = next(step.walk("flow.scan"))
    assert set(scan.effects) == {Effect("read", "count"), Effect("write", "count")}


def test_a_local_state_is_invisible_outside(step: Program) -> None:
    assert ir.is_pure(next(step.walk("flow.call")))
    assert not ir.is_pure(next(step.walk("state.alloc")))


def test_an_op_that_nobody_registered_has_unknown_effects() -> None:
    assert Op("nobody.knows").effects == (UNKNOWN,)
    assert not ir.is_pure(Op("nobody.knows"))


def test_a_jax_primitive_is_pure_unless_marked() -> None:
    assert ir.is_pure(Op("jax.add"))
    assert Op("jax.odd", attributes={"effects": ("Foo",)}).effects == (UNKNOWN,)


def test_host_ops_are_ordered_on_request() -> None:
    assert Op("host.debug_print").effects == (HOST,)
    assert Op("host.debug_print", attributes={"ordered": True}).effects == (ORDERED,)


def test_an_op_without_effects_cannot_be_registered() -> None:
    with pytest.raises(TypeError):
        ir.register_op("test.nothing")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="needs an effect rule"):
        ir.register_op("test.nothing", effects=None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="already registered"):
        ir.register_op("flow.scan", effects=ir.no_effects)


def test_a_loop_may_run_forever(step: Program) -> None:
    assert ir.may_diverge(next(step.walk("flow.scan")))  # a while loop is inside
    assert not ir.may_diverge(next(step.walk("flow.call")))


def test_constants_with_the_same_bits_have_the_same_key() -> None:
    assert Constant(0.0).key() == Constant(0.0).key() != Constant(-0.0).key() != Constant(0).key()


def order(*ops: Op) -> list[tuple[int, int, str | None]]:
    region = Region()
    for op in ops:
        region.append(op)
    return [
        (region.ops.index(o.before), region.ops.index(o.after), o.symbol) for o in ir.effect_order(region)
    ]


def read(symbol: str) -> Op:
    return Op("state.read", attributes={"symbol": symbol})


def write(symbol: str) -> Op:
    return Op("state.write", attributes={"symbol": symbol})


def test_effect_order_is_that_of_readers_and_writers() -> None:
    found = order(write("s"), read("s"), read("s"), read("t"), write("s"), write("s"))
    assert found == [(0, 1, "s"), (0, 2, "s"), (1, 4, "s"), (2, 4, "s"), (4, 5, "s")]


def test_an_unknown_effect_is_a_barrier() -> None:
    unknown = Op("nobody.knows")
    assert order(write("s"), read("t"), unknown, read("s"), Op("nobody.knows2")) == [
        (0, 2, "s"),
        (1, 2, "t"),
        (2, 3, "s"),
        (3, 4, "s"),
    ]


def test_host_effects_keep_their_order() -> None:
    assert order(Op("host.debug_print"), Op("jax.add"), Op("host.io_callback")) == [(0, 2, None)]


def test_captured_values_of_a_region_op(step: Program) -> None:
    scan = next(step.walk("flow.scan"))
    assert [value.name for value in ir.captured_values(scan)] == ["w", "lr"]
