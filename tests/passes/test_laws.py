"""Laws that every pass obeys, on random programs: what they compute stays the same, a second run is idle.

The programs here are full of what these passes look for: carries that repeat, rest or feed only themselves,
outputs that do not change, known branches, equal ops, States born in loops.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest

from stategraph import ir
from stategraph.backends.reference_compare import observe, random_sample
from stategraph.passes import Verify, run_passes
from tests.ir.programs import random_program
from tests.support import execute_both

F, N, B, V = (ir.TensorType(d, s) for d, s in (("f32", ()), ("i32", ()), ("bool", ()), ("f32", (3,))))
PASSES = (
    "dce",
    "cse",
    "licm",
    "simplify-loops",
    "simplify-branches",
    "fold-constants",
    "algebra",
    "inline-calls",
)
TOGETHER = "inline-calls,fold-constants,algebra,simplify-branches,simplify-loops,cse,licm,simplify-loops,dce"


class Maker:
    """Builds a runnable program out of random ops; ``scope`` holds the visible values."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.locals = 0

    def program(self) -> ir.Program:
        body = ir.Region([F, N, V], ["x", "i", "v"])
        scope = list(body.args)
        self.fill(body, scope, depth=3, states=["h", "n"])
        results = [self.pick(scope, type_) for type_ in (F, N, V)]
        body.yield_(results)
        states = {"h": ir.StateSymbol("h", "State", (F,)), "n": ir.StateSymbol("n", "State", (F,))}
        three = ir.tuple_tree(ir.LEAF, ir.LEAF, ir.LEAF)
        return ir.Program(
            "random", body, states, ["x", "i", "v"], three, result_names=["a", "b", "c"], result_tree=three
        )

    def pick(self, scope: list[ir.Value], type_: ir.Type) -> ir.Value:
        values = [value for value in scope if value.type == type_]
        if type_ != V and self.rng.random() < 0.25:
            return ir.Constant(np.asarray(self.rng.choice([0, 1, -1, 2]), ir.numpy_dtype(type_.dtype)), type_)  # type: ignore[union-attr]
        return self.rng.choice(values[-6:])

    def put(self, region: ir.Region, scope: list[ir.Value], op: ir.Op) -> ir.Op:
        region.append(op)
        scope += op.results
        return op

    def fill(self, region: ir.Region, scope: list[ir.Value], depth: int, states: list[str]) -> None:
        makers: list[Callable[..., None]] = [self.elementwise] * 6 + [self.access] * 2
        makers += [self.scan, self.while_, self.cond, self.call] if depth else []
        for _ in range(self.rng.randrange(2, 7)):
            self.rng.choice(makers)(region, scope, depth, states)

    def elementwise(self, region: ir.Region, scope: list[ir.Value], depth: int, states: list[str]) -> None:
        type_ = self.rng.choice([F, F, N, V])
        name = self.rng.choice(
            ["jax.add", "jax.mul", "jax.sub", "jax.neg", "jax.max", "jax.sin", "jax.xor", "jax.select_n"]
        )
        if name == "jax.sin" and type_ != N:
            op = ir.Op(name, [self.pick(scope, type_)], [type_], {"accuracy": None})
        elif name == "jax.select_n":
            less = self.put(region, scope, ir.Op("jax.lt", [self.pick(scope, N), self.pick(scope, N)], [B]))
            op = ir.Op(name, [less.result, self.pick(scope, type_), self.pick(scope, type_)], [type_])
            if any(operand.type != type_ for operand in op.operands[1:]):
                return
        elif name in ("jax.neg", "jax.sin"):
            op = ir.Op("jax.neg", [self.pick(scope, type_)], [type_])
        else:
            name = "jax.add" if name == "jax.xor" and type_ != N else name
            op = ir.Op(name, [self.pick(scope, type_), self.pick(scope, type_)], [type_])
        self.put(region, scope, op)

    def access(self, region: ir.Region, scope: list[ir.Value], depth: int, states: list[str]) -> None:
        symbol = self.rng.choice(states)
        if self.rng.random() < 0.5:
            self.put(region, scope, ir.Op("state.read", [], [F], {"symbol": symbol}))
        else:
            region.append(ir.Op("state.write", [self.pick(scope, F)], [], {"symbol": symbol}))

    def body(
        self, args: list[ir.Type], scope: list[ir.Value], depth: int, states: list[str]
    ) -> tuple[ir.Region, list[ir.Value]]:
        region = ir.Region(args)
        inner = [*scope, *region.args, *region.args]
        if self.rng.random() < 0.4:
            self.locals += 1
            states = [*states, f"local{self.locals}"]
            region.append(
                ir.Op(
                    "state.alloc",
                    [self.pick(inner, F)],
                    [],
                    {"symbol": states[-1], "kind": "State", "tree": ir.LEAF},
                )
            )
        self.fill(region, inner, depth - 1, states)
        return region, inner

    def carried(
        self, region: ir.Region, scope: list[ir.Value], count: int, inits: list[ir.Value]
    ) -> list[ir.Value]:
        """What a loop yields: often the argument itself, the initial value, or the same as another."""
        found: list[ir.Value] = []
        for arg, init in zip(region.args[:count], inits, strict=True):
            alike = [value for value in found if value.type == arg.type]
            choices = [
                arg,
                init,
                *alike,
                self.pick(scope, arg.type),
                self.pick(scope, arg.type),
                self.pick(scope, arg.type),
            ]
            found.append(self.rng.choice(choices))
        return found

    def scan(self, region: ir.Region, scope: list[ir.Value], depth: int, states: list[str]) -> None:
        types = [self.rng.choice([F, N, V]) for _ in range(self.rng.randrange(4))]
        inits = [self.pick(scope, type_) for type_ in types]
        length = self.rng.choice([0, 1, 3, 3])
        xs = [self.pick(scope, V)] if length == 3 else []
        inner, inside = self.body([*types, *[F] * len(xs)], scope, depth, states)
        stacked = [F] * self.rng.randrange(3)
        outputs = [self.rng.choice([self.pick(inside, F), *inner.args[len(types) :]]) for _ in stacked]
        inner.yield_([*self.carried(inner, inside, len(types), inits), *outputs])
        attributes = {"length": length, "reverse": self.rng.random() < 0.3, "unroll": 1, "carry": len(types)}
        results = [*types, *[ir.TensorType("f32", (length,)) for _ in stacked]]
        loop = self.put(region, scope, ir.Op("flow.scan", [*inits, *xs], results, attributes, [inner]))
        for output in loop.results[len(types) :]:
            self.take_one(region, scope, output, length)

    def take_one(self, region: ir.Region, scope: list[ir.Value], output: ir.Value, length: int) -> None:
        if length == 0 or self.rng.random() < 0.3:
            return
        start = self.rng.choice([0, length - 1])
        attributes = {"start_indices": (start,), "limit_indices": (start + 1,), "strides": None}
        one = self.put(region, scope, ir.Op("jax.slice", [output], [ir.TensorType("f32", (1,))], attributes))
        self.put(region, scope, ir.Op("jax.squeeze", [one.result], [F], {"dimensions": (0,)}))

    def while_(self, region: ir.Region, scope: list[ir.Value], depth: int, states: list[str]) -> None:
        types = [N, *[self.rng.choice([F, N, V]) for _ in range(self.rng.randrange(3))]]
        inits: list[ir.Value] = [
            ir.Constant(np.int32(0), N),
            *(self.pick(scope, type_) for type_ in types[1:]),
        ]
        cond = ir.Region(types)
        less = cond.append(
            ir.Op("jax.lt", [cond.args[0], ir.Constant(np.int32(self.rng.randrange(3)), N)], [B])
        )
        cond.yield_(less.results)
        inner, inside = self.body(types, scope, depth, states)
        step = inner.append(ir.Op("jax.add", [inner.args[0], ir.Constant(np.int32(1), N)], [N]))
        inner.yield_([step.result, *self.carried(inner, inside, len(types), inits)[1:]])
        self.put(region, scope, ir.Op("flow.while", inits, types, {}, [cond, inner]))

    def cond(self, region: ir.Region, scope: list[ir.Value], depth: int, states: list[str]) -> None:
        types = [self.rng.choice([F, N, V]) for _ in range(self.rng.randrange(4))]
        shared = [self.pick(scope, type_) for type_ in types]
        branches = []
        for _ in range(self.rng.choice([1, 2, 3])):
            inner, inside = self.body([], scope, depth, states)
            inner.yield_([self.rng.choice([v, self.pick(inside, v.type)]) for v in shared])
            branches.append(inner)
        self.put(region, scope, ir.Op("flow.cond", [self.pick(scope, N)], types, {}, branches))

    def call(self, region: ir.Region, scope: list[ir.Value], depth: int, states: list[str]) -> None:
        types = [F, N]
        inner, inside = self.body(types, scope, depth, states)
        inner.yield_([self.pick(inside, F), self.pick(inside, V)])
        operands = [self.pick(scope, type_) for type_ in types]
        name, attributes = self.rng.choice([("flow.call", {"name": "f"}), ("xform.remat", {})])
        self.put(region, scope, ir.Op(name, operands, [F, V], dict(attributes), [inner]))


@pytest.mark.parametrize("seed", range(24))
def test_what_a_program_computes_stays_the_same(seed: int) -> None:
    program = Maker(seed).program()
    for pipeline in [*PASSES, TOGETHER, "default"]:
        after = run_passes(program, pipeline, instruments=[Verify()]).program
        if after != program:
            try:
                observe(program, random_sample(program, seed, False))  # it can be executed at all
                execute_both(program, after, samples=1, seed=seed)
            except Exception as error:
                error.add_note(f"seed {seed}, pipeline {pipeline}\n{program}\n{after}")
                raise


@pytest.mark.parametrize("seed", range(40))
def test_every_pass_keeps_any_program_valid(seed: int) -> None:
    program = random_program(seed)
    for pipeline in [*PASSES, TOGETHER]:
        run_passes(program, pipeline, instruments=[Verify()])


@pytest.mark.parametrize("name", ["dce", "cse", "licm", "simplify-branches", "inline-calls"])
def test_a_second_run_changes_nothing(name: str) -> None:
    for seed in range(15):
        once = run_passes(Maker(seed).program(), name).program
        assert run_passes(once, name).program == once


def test_locations_survive() -> None:
    for seed in range(15):
        program = Maker(seed).program()
        for number, op in enumerate(program.walk()):
            op.location = ir.Location("model.py", number + 1)
        after = run_passes(program, TOGETHER).program
        assert all(op.location.known for op in after.walk())


def test_uses_and_positions_stay_right() -> None:
    for seed in range(30):
        after = run_passes(Maker(seed).program(), TOGETHER).program
        taken: dict[ir.Value, list[ir.Op]] = {}
        for op in after.walk():
            for operand in op.operands:
                taken.setdefault(operand, []).append(op)
            for region in op.regions:
                assert region.owner is op and [arg.index for arg in region.args] == list(
                    range(len(region.args))
                )
            assert [result.index for result in op.results] == list(range(len(op.results)))
        for value, users in taken.items():
            if not isinstance(value, ir.Constant):
                assert sorted(map(id, value._users)) == sorted(map(id, users))
