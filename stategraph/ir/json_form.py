"""A program as plain JSON data, and back: for tools in other languages. As lossless as the text form.

    {"format": "stategraph", "version": 1, "name": "step",
     "arguments": [{"name": "x", "value": "%x", "type": "f32[3]"}], …,
     "states": [{"path": "net.h", "kind": "HiddenState", "types": ["f32[3]"], …}],
     "ops": [{"name": "state.read", "operands": [], "results": [{"value": "%0", "type": "f32[3]"}],
              "attributes": {"symbol": "net.h"}, "regions": [], "location": 0}, …],
     "locations": [["model.py", 7, "step", ""], …], "resources": {"$0": {"type": "f32[8,8]", "data":
     "base64"}}}

Attributes that JSON has are written as such (a tuple as an array); all others as ``{"text": …}`` in the
spelling of the text form, which is also that of types, trees and constants.
"""

from __future__ import annotations

from typing import Any

from stategraph.ir.arrays import KeyData, Resources, decode, dtype_name, encode, host_data, key_impl
from stategraph.ir.attribute_text import AttributeWriter
from stategraph.ir.core import FORMAT_VERSION, Constant, Op, Program, Region, StateSymbol, Value
from stategraph.ir.errors import ParseError
from stategraph.ir.lexer import Tokens
from stategraph.ir.location import UNKNOWN, Location
from stategraph.ir.printer import Printer
from stategraph.ir.tree import Tree
from stategraph.ir.types import TensorType, Type
from stategraph.ir.value_parser import Refined, ValueParser

Json = dict[str, Any]
_EXACT = 2**53
"""Larger integers are not exact in every JSON reader."""


def to_json(program: Program) -> Json:
    """``program`` as dicts, lists, strings, numbers, booleans and None, ready for ``json.dumps``."""
    return _Writer().program(program)


def from_json(data: Json) -> Program:
    """The program that ``to_json`` wrote. Raises ``ParseError`` for anything else."""
    if not isinstance(data, dict) or data.get("format") != "stategraph":
        raise _error('there is no "format": "stategraph"')
    version = data.get("version")
    if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
        raise _error(f"it has format version {version!r}, and this StateGraph reads 1 to {FORMAT_VERSION}")
    try:
        return _Reader(data).program(data)
    except (KeyError, IndexError) as error:
        raise _error(f"{error} is missing") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise _error(str(error)) from error


def _error(why: str) -> ParseError:
    return ParseError(f"this is not the JSON form of a program: {why}", "", 0, "<json>")


class _Writer:
    def __init__(self) -> None:
        self.names = Printer()
        self.resources: Resources = self.names.resources
        self.write: AttributeWriter = self.names.write
        self.locations: dict[Location, int] = {}

    def program(self, program: Program) -> Json:
        data: Json = {
            "format": "stategraph",
            "version": program.version,
            "name": program.name,
            "arguments": [
                {"name": name, **self.value(arg)}
                for name, arg in zip(program.argument_names, program.body.args, strict=True)
            ],
            "argument_tree": self.write.tree(program.argument_tree),
            "captured": {name: self.resources.reference(array) for name, array in program.captured.items()},
            "result_names": list(program.result_names),
            "result_tree": self.write.tree(program.result_tree),
            "attributes": self.attributes(program.attributes),
            "location": self.location(program.location),
            "states": [self.symbol(symbol) for symbol in program.states.values()],
            "ops": [self.op(op) for op in program.body.ops],
        }
        data["locations"] = [list(location.fields) for location in self.locations]
        data["resources"] = {f"${i}": _resource(array) for i, array in enumerate(self.resources.arrays)}
        return data

    def symbol(self, symbol: StateSymbol) -> Json:
        initial = symbol.initial
        return {
            "path": symbol.path,
            "kind": symbol.kind,
            "types": [str(type) for type in symbol.types],
            "tree": self.write.tree(symbol.tree),
            "final_types": [str(type) for type in symbol.result_types],
            "final_tree": self.write.tree(symbol.result_tree),
            "born": symbol.born,
            "initial": None if initial is None else [self.resources.reference(array) for array in initial],
            "attributes": self.attributes(symbol.attributes),
            "location": self.location(symbol.location),
        }

    def op(self, op: Op) -> Json:
        return {
            "name": op.name,
            "operands": [
                {"constant": self.names.use(v)} if isinstance(v, Constant) else self.names.use(v)
                for v in op.operands
            ],
            "results": [self.value(result) for result in op.results],
            "attributes": self.attributes(op.attributes),
            "regions": [self.region(region) for region in op.regions],
            "location": self.location(op.location),
        }

    def region(self, region: Region) -> Json:
        return {
            "arguments": [self.value(arg) for arg in region.args],
            "ops": [self.op(op) for op in region.ops],
        }

    def value(self, value: Value) -> Json:
        return {"value": self.names.define(value), "type": self.write.refined(value)}

    def location(self, location: Location) -> int | None:
        return None if location == UNKNOWN else self.locations.setdefault(location, len(self.locations))

    def attributes(self, attributes: dict[str, Any]) -> Json:
        return {key: self.attribute(attributes[key]) for key in sorted(attributes)}

    def attribute(self, value: Any) -> Any:
        if value is None or type(value) in (bool, str) or (type(value) is int and abs(value) < _EXACT):
            return value
        if type(value) is tuple:
            return [self.attribute(item) for item in value]
        return {"text": self.write.attribute(value)}


def _resource(array: Any) -> Json:
    data = host_data(array)
    type = str(TensorType(dtype_name(data.dtype), data.shape))
    impl = key_impl(array)
    return {"type": type, "data": encode(array)} | ({} if impl is None else {"key": impl})


class _Reader:
    def __init__(self, data: Json) -> None:
        self.locations = [Location(*fields) for fields in data["locations"]]
        self.resources: dict[str, Any] = {}
        self.types: dict[str, Refined] = {}
        self.values: dict[str, Value] = {}
        for name, resource in data["resources"].items():
            type = self.type(resource["type"])
            if not isinstance(type, TensorType):
                raise ValueError(f"resource {name} is no tensor")
            array = decode(resource["data"], type.dtype, type.shape)
            self.resources[name] = KeyData(resource["key"], array) if "key" in resource else array

    def program(self, data: Json) -> Program:
        body = Region()
        self.define(data["arguments"], body.args, body)
        states = [self.symbol(symbol) for symbol in data["states"]]
        program = Program(
            name=data["name"],
            body=body,
            states={symbol.path: symbol for symbol in states},
            argument_names=[argument["name"] for argument in data["arguments"]],
            argument_tree=self.tree(data["argument_tree"]),
            captured={name: self.resources[reference] for name, reference in data["captured"].items()},
            result_names=list(data["result_names"]),
            result_tree=self.tree(data["result_tree"]),
            attributes=self.attributes(data["attributes"]),
            location=self.location(data["location"]),
            version=data["version"],
        )
        for op in data["ops"]:
            body.append(self.op(op))
        return program

    def symbol(self, data: Json) -> StateSymbol:
        initial = data["initial"]
        types, final_types = (tuple(map(self.type, data[key])) for key in ("types", "final_types"))
        tree, final_tree = self.tree(data["tree"]), self.tree(data["final_tree"])
        return StateSymbol(
            data["path"],
            data["kind"],
            types,
            tree,
            None if final_types == types else final_types,
            None if final_tree == tree else final_tree,
            data["born"],
            None if initial is None else tuple(self.resources[reference] for reference in initial),
            self.attributes(data["attributes"]),
            self.location(data["location"]),
        )

    def op(self, data: Json) -> Op:
        operands = [self.operand(operand) for operand in data["operands"]]
        op = Op(
            data["name"],
            operands,
            (),
            self.attributes(data["attributes"]),
            (),
            self.location(data["location"]),
        )
        for nested in data["regions"]:
            region = Region()
            self.define(nested["arguments"], region.args, region)
            for inner in nested["ops"]:
                region.append(self.op(inner))
            region.owner = op
            op.regions.append(region)
        self.define(data["results"], op.results, op)
        return op

    def define(self, data: list[Json], out: list[Value], owner: Op | Region) -> None:
        for i, item in enumerate(data):
            name = item["value"]
            type, event = self.refined(item["type"])
            value = Value(type, owner, i, None if name[1:].isdecimal() else name[1:])
            value.event = event
            self.values[name] = value
            out.append(value)

    def operand(self, data: Any) -> Value:
        return self.snippet(data["constant"]).constant() if isinstance(data, dict) else self.values[data]

    def location(self, number: int | None) -> Location:
        return UNKNOWN if number is None else self.locations[number]

    def type(self, text: str) -> Type:
        return self.refined(text)[0]

    def refined(self, text: str) -> Refined:
        found = self.types.get(text)
        if found is None:
            found = self.types[text] = self.snippet(text).refined()
        return found

    def tree(self, text: str) -> Tree:
        return self.snippet(text).tree()

    def snippet(self, text: str) -> ValueParser:
        parser = ValueParser(Tokens(text, "<json>"))
        parser.resources = self.resources
        return parser

    def attributes(self, data: Json) -> dict[str, Any]:
        return {key: self.attribute(value) for key, value in data.items()}

    def attribute(self, data: Any) -> Any:
        if isinstance(data, list):
            return tuple(map(self.attribute, data))
        return self.snippet(data["text"]).attribute() if isinstance(data, dict) else data
