"""Random valid programs: every kind of op, type, attribute, name and location that the IR knows.

``random_program(seed)`` is what the oracle tests of this folder run on: text, JSON, verifier, clone.
"""

from __future__ import annotations

import random
import struct
from typing import Any

import numpy as np

from stategraph import ir
from stategraph.ir import Constant, Location, Op, Program, Region, StateSymbol, TensorType, Tree, Type, Value

DTYPES = [
    "f32",
    "f32",
    "f32",
    "i32",
    "i32",
    "bool",
    "f64",
    "f16",
    "bf16",
    "i8",
    "u8",
    "i64",
    "u64",
    "i4",
    "u4",
]
DTYPES += ["i2", "c64", "c128", "f8_e4m3fn", "f8_e5m2", "f8_e8m0fnu", "f4_e2m1fn"]
STRINGS = [
    "x",
    "W",
    "net.E.V",
    "",
    "a b",
    'quo"te',
    "back\\slash",
    "new\nline",
    "ü∂",
    "\x00\x7f",
    "{-#",
    "#-}",
    "//",
    "\ud800",
    "%0",
]
STRINGS += [
    "true",
    "inf",
    "none",
    "1",
    "1.5",
    "f32[3]",
    "locations {",
    "x[0]",
    "d['k']",
    'd["k"]',
    "a.b.",
    "state",
    "é",
    "\u2028",
]
NAMES = [None, None, None, "h", "h", "h_1", "x", "loss", "0", "a b", "ü", "h.x", "", "_", "9x", "%", "²"]
FUNCTIONS = ["", "step", "<lambda>", "Net.__call__", 'f"g']

if ir.definition_of("test.widget") is None:
    ir.register_op("test.widget", effects=ir.no_effects, summary="an op of a plugin")
    ir.register_op("test-odd op", effects=ir.no_effects, summary="an op with a name that has to be quoted")


def random_program(seed: int, size: int = 12) -> Program:
    """A valid program of roughly ``size`` ops at the top and up to four levels of regions."""
    return _Maker(random.Random(seed), size).program()


def random_attribute(rng: random.Random, depth: int = 2) -> Any:
    """An attribute of any kind that has a text form."""
    kinds = 17 if depth == 0 else 23
    match rng.randrange(kinds):
        case 0:
            return None
        case 1:
            return rng.random() < 0.5
        case 2:
            return rng.choice([0, 1, -1, 2**70, -(2**63), rng.randrange(1000)])
        case 3:
            return rng.choice(
                [
                    0.0,
                    -0.0,
                    1.0,
                    1e300,
                    5e-324,
                    0.1,
                    float("inf"),
                    -float("inf"),
                    float("nan"),
                    random_double(rng),
                ]
            )
        case 4:
            return complex(random_double(rng), rng.choice([-0.0, 1.5]))
        case 5:
            return rng.choice(STRINGS)
        case 6:
            return rng.randbytes(rng.randrange(5))
        case 7:
            return random_tree(rng, 2)
        case 8:
            return random_type(rng)
        case 9:
            return ir.DType(rng.choice(DTYPES + ["key<fry>", "none", "odd name"]))
        case 10:
            return ir.Symbol(rng.choice(STRINGS))
        case 11:
            return ir.EnumValue(
                rng.choice(["GatherScatterMode", "true", "a.b", "x y"]),
                rng.choice(["CLIP", "none", "1", "q.r"]),
            )
        case 12:
            return ir.RegionRef(rng.randrange(3))
        case 13:
            return ir.Opaque(rng.choice(STRINGS))
        case 14:
            return ir.Dense(random_array(rng, random_tensor(rng)))
        case 15:
            return ()
        case 16:
            return {}
        case 17 | 18:
            return tuple(random_attribute(rng, depth - 1) for _ in range(rng.randrange(4)))
        case 19:
            return [random_attribute(rng, depth - 1) for _ in range(rng.randrange(3))]
        case 20:
            return {
                key: random_attribute(rng, depth - 1)
                for key in rng.sample([*STRINGS, 1, None, (1, "a"), b"x", 2.5], 3)
            }
        case _:
            fields = tuple(
                (name, random_attribute(rng, depth - 1)) for name in rng.sample(STRINGS, rng.randrange(3))
            )
            return ir.Record(
                rng.choice(["GatherDimensionNumbers", "complex", "a.b", "odd name", "tree", "key"]), fields
            )


def random_double(rng: random.Random) -> float:
    value: float = struct.unpack("<d", rng.randbytes(8))[0]
    return value


def random_tree(rng: random.Random, depth: int) -> Tree:
    kind = rng.choice(
        ["leaf", "leaf", "none"]
        if depth == 0
        else ["leaf", "none", "tuple", "list", "dict", "custom", "custom"]
    )
    if kind in ("leaf", "none"):
        return Tree(kind)
    children = tuple(random_tree(rng, depth - 1) for _ in range(rng.randrange(4)))
    if kind == "dict":
        return Tree(kind, children, tuple(rng.sample([*STRINGS, 1, -3, (1, "a"), None], len(children))))
    if kind == "custom":
        keys = tuple(rng.sample([*STRINGS, 1], len(children))) if rng.random() < 0.5 else ()
        return Tree(
            kind, children, keys, rng.choice(["collections.Point", "Params", "none", "odd name", "key"])
        )
    return Tree(kind, children)


def random_tensor(rng: random.Random) -> TensorType:
    shape = rng.choice([(), (), (), (3,), (2, 2), (10,), (2, 0), (0,), (17,), (1, 1, 1), (5, 7)])
    return TensorType(rng.choice(DTYPES), shape, rng.random() < 0.1)


def random_type(rng: random.Random) -> Type:
    choice = rng.random()
    if choice < 0.05:
        return ir.KeyType(rng.choice(["fry", "rbg", "odd impl"]), rng.choice([(), (2,)]))
    if choice < 0.08:
        return ir.OpaqueType(rng.choice(["Ref{float32[3]}", 'a"b']))
    return random_tensor(rng)


def random_array(rng: random.Random, type: TensorType) -> np.ndarray:
    """An array of random bits, often special ones."""
    dtype = ir.numpy_dtype(type.dtype)
    if type.dtype == "bool":
        return np.array([rng.random() < 0.5 for _ in range(type.size)], dtype).reshape(type.shape)
    if type.dtype in ("i4", "u4", "i2"):
        return np.array([rng.randrange(2) for _ in range(type.size)], dtype).reshape(type.shape)
    if rng.random() < 0.5 and type.dtype[0] in "fbc" and type.dtype not in ("f8_e8m0fnu", "f4_e2m1fn"):
        special = [0.0, -0.0, 1.0, -1.5, float("nan"), 0.1, 3.0]
        if type.dtype != "f8_e4m3fn":
            special.append(-float("inf"))
        return np.array([rng.choice(special) for _ in range(type.size)], dtype).reshape(type.shape)
    bits = bytearray(rng.randbytes(type.size * dtype.itemsize))
    if type.dtype == "f4_e2m1fn":
        bits = bytearray(b & 15 for b in bits)
    return np.frombuffer(bits, dtype).reshape(type.shape)


class _Maker:
    def __init__(self, rng: random.Random, size: int) -> None:
        self.rng = rng
        self.size = size
        self.visible: list[list[Value]] = []
        self.states: dict[str, tuple[Type, ...]] = {}
        self.allocated = 0
        self.pool = [random_type(rng) for _ in range(5)]
        self.places = [ir.UNKNOWN, *(self.place() for _ in range(6))]

    def place(self) -> Location:
        rng = self.rng
        return Location(
            rng.choice(["model.py", "/a b/x.py", 'q".py', "In[5]"]),
            rng.randrange(99),
            rng.choice(FUNCTIONS),
            rng.choice(["", "enc/rnn"]),
        )

    def program(self) -> Program:
        rng = self.rng
        symbols = {}
        for path in rng.sample([s for s in STRINGS if s] + ["net.layers[0].W", "net.h"], rng.randrange(4)):
            symbols[path] = self.symbol(path)
            self.states[path] = symbols[path].types
        for symbol in symbols.values():
            if symbol.born:
                del self.states[symbol.path]
        captured = {
            name: random_array(rng, random_tensor(rng))
            for name in rng.sample(["table", "a b", "mask"], rng.randrange(3))
        }
        if rng.random() < 0.2:
            captured["key"] = ir.KeyData("fry", np.arange(4, dtype=np.uint32).reshape(2, 2))
        arguments = [self.type() for _ in range(rng.randrange(4))]
        types = [*arguments, *map(_type_of, captured.values())]
        body = Region(types, [self.name() for _ in types])
        self.visible.append(list(body.args))
        for path, symbol in symbols.items():
            if symbol.born:
                self.add(
                    body,
                    Op(
                        "state.alloc",
                        self.values(body, symbol.types),
                        (),
                        {"symbol": path},
                        location=self.where(),
                    ),
                )
                self.states[path] = symbol.types
        self.fill(body, self.size, 4, top=True)
        results = [self.type() for _ in range(rng.randrange(3))]
        body.yield_(self.values(body, results), self.where())
        for path, symbol in symbols.items():
            if self.states[path] != symbol.types:
                symbol.final_types = self.states[path]
        names = rng.sample(STRINGS, len(arguments))
        return Program(
            rng.choice(["step", "odd name", "net.update"]),
            body,
            symbols,
            [*names, *captured],
            self.some_tree(len(arguments)),
            captured,
            rng.sample(STRINGS, len(results)),
            self.some_tree(len(results)),
            {name: random_attribute(rng) for name in rng.sample(STRINGS, rng.randrange(2))},
            self.where(),
        )

    def some_tree(self, leaves: int) -> Tree:
        tree = Tree("tuple", (ir.LEAF,) * leaves)
        if leaves == 1 and self.rng.random() < 0.5:
            return ir.LEAF
        return self.rng.choice([tree, Tree("tuple", (tree, Tree("dict"))), Tree("list", tree.children)])

    def symbol(self, path: str) -> StateSymbol:
        rng = self.rng
        tree = rng.choice([ir.LEAF, ir.LEAF, random_tree(rng, 2)])
        types = tuple(random_tensor(rng).strong() for _ in range(tree.leaf_count))
        initial = tuple(random_array(rng, type) for type in types) if rng.random() < 0.5 else None
        attributes = {name: random_attribute(rng) for name in rng.sample(STRINGS, rng.randrange(2))}
        kind = rng.choice(["HiddenState", "ParamState", "odd kind"])
        born = rng.random() < 0.2
        return StateSymbol(
            path, kind, types, tree, None, None, born, None if born else initial, attributes, self.where()
        )

    def name(self) -> str | None:
        return self.rng.choice(NAMES)

    def where(self) -> Location:
        return self.rng.choice(self.places)

    def type(self) -> Type:
        return self.rng.choice(self.pool) if self.rng.random() < 0.8 else random_type(self.rng)

    def value(self, region: Region, type: Type) -> Value:
        """A visible value of this type, a constant, or the result of a new op."""
        if isinstance(type, TensorType) and self.rng.random() < 0.2:
            return Constant(random_array(self.rng, type), type)
        found = [value for values in self.visible for value in values if value.type == type]
        if found and self.rng.random() < 0.9:
            return self.rng.choice(found)
        return self.add(region, Op("jax.make", (), (type,), {}, location=self.where())).result

    def values(self, region: Region, types: Any) -> list[Value]:
        return [self.value(region, type) for type in types]

    def add(self, region: Region, op: Op) -> Op:
        region.append(op)
        for result in op.results:
            result.name = self.name()
        self.visible[-1] += op.results
        return op

    def attributes(self) -> dict[str, Any]:
        names = [name for name in STRINGS if name not in ("effects", "name")]
        return {
            name: random_attribute(self.rng) for name in self.rng.sample(names, self.rng.choice([0, 0, 1, 3]))
        }

    def region(self, arg_types: list[Type], depth: int, yielded: list[Type], size: int = 3) -> Region:
        region = Region(arg_types, [self.name() for _ in arg_types])
        self.visible.append(list(region.args))
        before = dict(self.states)
        self.fill(region, self.rng.randrange(size + 1), depth - 1)
        region.yield_(self.values(region, yielded), self.where())
        self.visible.pop()
        self.states = before
        return region

    def fill(self, region: Region, count: int, depth: int, top: bool = False) -> None:
        for _ in range(count):
            self.one(region, depth, top)

    def one(self, region: Region, depth: int, top: bool) -> None:
        rng = self.rng
        kind = rng.randrange(7 if depth == 0 else 17)
        paths = list(self.states)
        if kind <= 1 or (kind in (2, 3) and not paths):
            name = rng.choice(["jax.add", "jax.mul", "test.widget", "test-odd op", "host.debug_print"])
            operands = self.values(region, [self.type() for _ in range(rng.randrange(3))])
            self.op(
                region, name, operands, [self.type() for _ in range(rng.randrange(3))], self.attributes(), []
            )
        elif kind == 2:
            path = rng.choice(paths)
            self.op(region, "state.read", [], list(self.states[path]), {"symbol": path}, [])
        elif kind in (3, 4) and paths:
            path = rng.choice(paths)
            types = self.states[path]
            if top and rng.random() < 0.3:
                types = self.states[path] = tuple(random_tensor(rng).strong() for _ in types)
            self.op(region, "state.write", self.values(region, types), [], {"symbol": path}, [])
        elif kind <= 6:
            self.allocated += 1
            path = f"local{self.allocated}"
            types = tuple(random_tensor(rng).strong() for _ in range(rng.randrange(3)))
            self.op(
                region,
                "state.alloc",
                self.values(region, types),
                [],
                {"symbol": path, **self.attributes()},
                [],
            )
            if not top:
                self.states[path] = types
        else:
            self.nested(region, depth, kind)

    def op(
        self,
        region: Region,
        name: str,
        operands: list[Value],
        types: Any,
        attributes: dict[str, Any],
        regions: list[Region],
    ) -> Op:
        return self.add(region, Op(name, operands, types, attributes, regions, self.where()))

    def nested(self, region: Region, depth: int, kind: int) -> None:
        rng = self.rng
        carry, others = (
            [self.type() for _ in range(rng.randrange(3))],
            [self.type() for _ in range(rng.randrange(2))],
        )
        boolean = TensorType("bool")
        if kind in (7, 8):
            stacked = [random_tensor(rng) for _ in range(rng.randrange(2))]
            length = rng.choice([0, 1, 4])
            xs = [TensorType(t.dtype, (length, *t.shape), t.weak) for t in stacked]
            operands = self.values(region, [*carry, *xs])
            body = self.region([*carry, *stacked], depth, [*carry, *stacked])
            attributes = {
                "length": length,
                "carry": len(carry),
                "reverse": rng.random() < 0.2,
                "unroll": rng.choice([1, 1, 4]),
            }
            self.op(region, "flow.scan", operands, [*carry, *xs], attributes, [body])
        elif kind == 9:
            operands = self.values(region, carry)
            self.op(
                region,
                "flow.while",
                operands,
                carry,
                {},
                [self.region(carry, depth, [boolean]), self.region(carry, depth, carry)],
            )
        elif kind in (10, 11):
            index = self.value(region, rng.choice([boolean, TensorType("i32")]))
            count = 2 if index.type == boolean else rng.randrange(1, 4)
            self.op(
                region, "flow.cond", [index], carry, {}, [self.region([], depth, carry) for _ in range(count)]
            )
        elif kind == 12:
            operands = self.values(region, carry)
            attributes = {"name": rng.choice(STRINGS), **({"inline": True} if rng.random() < 0.3 else {})}
            self.op(region, "flow.call", operands, others, attributes, [self.region(carry, depth, others)])
        elif kind == 13:
            operands = self.values(region, carry)
            body = self.region(carry, depth, others)
            self.op(
                region,
                rng.choice(["xform.remat", "test.widget"]),
                operands,
                others,
                self.attributes(),
                [body],
            )
        elif kind == 14 and others:
            operands = self.values(region, carry)
            body = self.region(carry, depth, others)
            attributes = {"states": tuple(map(ir.Symbol, self.states)), "holomorphic": False}
            self.op(region, "xform.grad", operands, [*others, *carry], attributes, [body])
        elif kind == 15 and others:
            operands = self.values(region, carry)
            call = self.region(carry, depth, others, 0)
            fwd = self.region(carry, depth, [*others, *carry], 0)
            bwd = self.region([*carry, *others], depth, carry, 0)
            self.op(region, "flow.custom_vjp", operands, others, {"name": "f"}, [call, fwd, bwd])
        elif kind == 15:
            operands = self.values(region, carry)
            call = self.region(carry, depth, others, 0)
            self.op(region, "flow.custom_jvp", operands, others, {"name": "f", "recursive": 1}, [call])
        elif kind == 14:
            operands = self.values(region, carry)
            jvp = self.region([*carry, *carry], depth, [*others, *others], 0)
            regions = [self.region(carry, depth, others, 0), jvp]
            self.op(region, "flow.custom_jvp", operands, others, {}, regions)
        else:
            operands = self.values(region, carry)
            regions = [self.region([self.type()], depth, [self.type()]) for _ in range(rng.randrange(4))]
            self.op(region, "test.widget", operands, others, self.attributes(), regions)


def _type_of(array: Any) -> Type:
    if isinstance(array, ir.KeyData):
        return ir.KeyType(array.impl, array.shape)
    return TensorType(ir.short_dtype(array.dtype.name), array.shape)
