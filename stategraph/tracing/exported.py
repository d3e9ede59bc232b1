"""A loaded program: StableHLO, its States, and nothing of the model.

exported = stategraph.load_exported("step.sgx")
y = exported(x)                                   # reads and writes exported.states
y, states = exported.functional(states, x)        # touches none
exported.states["net.h"] = h
"""

from __future__ import annotations

import json
import os
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import jax
import jax.export

from stategraph._version import __version__
from stategraph.backends.checks import checks_from_text
from stategraph.errors import CallError, ExportError
from stategraph.ir.tree import Tree
from stategraph.ir.types import Type
from stategraph.passes.registry import closest
from stategraph.tracing import container
from stategraph.tracing.portable import (
    as_leaf,
    flatten,
    from_raw,
    needs_x64,
    parse_tree,
    parse_type,
    rebuild,
    to_host,
    to_raw,
    tree_text,
)
from stategraph.tracing.signature import Row, SignatureTable

Leaf = tuple[str, int]


class UnknownState(CallError, KeyError):
    """A path that names no State of the exported program."""

    __str__ = Exception.__str__


@attrs.frozen(eq=False)
class StateRecord:
    """What an exported program knows of one State."""

    path: str
    kind: str
    types: tuple[Type, ...]
    tree: Tree
    result_types: tuple[Type, ...]
    result_tree: Tree
    born: bool
    unit: Any = None
    """The unit of the values, as text, or a tuple with one for each leaf; values are plain arrays in it."""

    def flatten(self, value: Any) -> list[Any]:
        """The leaves of a value for this State; ``CallError`` when it has another structure or type."""
        leaves = flatten(self.tree, value, f"State @{self.path}")
        return [
            as_leaf(leaf, type, self.leaf_name(i))
            for i, (leaf, type) in enumerate(zip(leaves, self.types, strict=True))
        ]

    def leaf_name(self, i: int) -> str:
        if len(self.types) == 1:
            return f"State @{self.path}"
        steps = list(self.tree.leaf_paths())[i]
        return f"State @{self.path}" + "".join(f"[{step!r}]" for step in steps)

    def __str__(self) -> str:
        unit = (
            ""
            if self.unit is None
            else f" in {self.unit if isinstance(self.unit, str) else ', '.join(self.unit)}"
        )
        return f"@{self.path} : {self.kind}<{', '.join(map(str, self.types))}>{unit}"


class ExportedStates(MutableMapping[str, Any]):
    """The States of an exported program: path → value. A value that is assigned must have the State's
    structure and types.

    A State that the program itself creates appears after the first call.
    """

    def __init__(self, records: Mapping[str, StateRecord], leaves: dict[str, list[Any]]) -> None:
        self._records = records
        self._leaves = leaves
        self._trees = {path: records[path].tree for path in leaves}

    def _record(self, path: str) -> StateRecord:
        record = self._records.get(str(path).removeprefix("@"))
        if record is None:
            raise UnknownState(
                f"there is no State {path!r}{closest(str(path), self._records)}; the States are "
                f"{', '.join(self._records) or 'none'}"
            )
        return record

    def __getitem__(self, path: str) -> Any:
        record = self._record(path)
        if record.path not in self._leaves:
            raise UnknownState(
                f"State @{record.path} has no value yet: the program creates it in its first call"
            )
        return rebuild(self._trees[record.path], self._leaves[record.path])

    def __setitem__(self, path: str, value: Any) -> None:
        record = self._record(path)
        if record.born:
            raise CallError(f"State @{record.path} is created by the program and cannot be assigned")
        self._put(record.path, record.flatten(value), record.tree)

    def __delitem__(self, path: str) -> None:
        raise CallError(f"State @{self._record(path).path} cannot be removed from an exported program")

    def _put(self, path: str, leaves: list[Any], tree: Tree) -> None:
        self._leaves[path] = leaves
        self._trees[path] = tree

    def __iter__(self) -> Iterator[str]:
        return iter([path for path in self._records if path in self._leaves])

    def __len__(self) -> int:
        return len(self._leaves)

    def __repr__(self) -> str:
        return "\n".join(map(str, self._records.values())) or "no States"


class Exported:
    """A program that runs without its model. Made by ``stategraph.export`` and
    ``stategraph.load_exported``.
    """

    def __init__(self, header: dict[str, Any], blobs: dict[str, bytes], source: str) -> None:
        self._header = header
        self._blobs = {name: blobs[name] for name in ("stablehlo", "program")}
        self._lock = threading.RLock()
        self.name: str = header["name"]
        self.platforms: tuple[str, ...] = tuple(header["platforms"])
        self.stripped: list[str] = list(header["stripped"])
        """Host effects that were left out on request, with their places."""
        self.jax_version: str = header["jax"]
        """The JAX that exported the program."""
        self.calling_convention: int = header["calling_convention"]
        """The version of ``jax.export``'s calling convention."""
        self.signature = SignatureTable([Row(*row) for row in header["signature"]])
        """Inputs, States in, results and States out, by name."""
        self._arguments = parse_tree(header["arguments"]["tree"])
        self._argument_names: list[str] = header["arguments"]["names"]
        self._argument_types = [parse_type(text) for text in header["arguments"]["types"]]
        self._results = parse_tree(header["results"]["tree"])
        self._result_types = [parse_type(text) for text in header["results"]["types"]]
        self._records = {entry["path"]: _record(entry) for entry in header["states"]}
        self._reads: list[Leaf] = [(path, i) for path, i in header["reads"]]
        self._writes: list[Leaf] = [(path, i) for path, i in header["writes"]]
        self._checks = checks_from_text(header.get("checks", ""))
        self._changing = [
            path
            for path in dict(self._reads)
            if self._records[path].types != self._records[path].result_types
        ]
        """States that do not fit any more once the program has run."""
        self._check_x64(source)
        arrays = [
            container.unpack_array(short, blobs[f"array/{i}"]) for i, short in enumerate(header["arrays"])
        ]
        self._captured = [jax.numpy.asarray(arrays[i]) for i in header["captured"]]
        leaves = {}
        for entry in header["states"]:
            if entry["values"] is not None:
                types = self._records[entry["path"]].types
                leaves[entry["path"]] = [
                    from_raw(jax.numpy.asarray(arrays[i]), type)
                    for i, type in zip(entry["values"], types, strict=True)
                ]
        self.states = ExportedStates(self._records, leaves)
        """The States, by path: a mutable mapping."""
        try:
            self._exported = jax.export.deserialize(bytearray(self._blobs["stablehlo"]))
        except Exception as error:
            raise ExportError(
                f"{source} was exported by JAX {self.jax_version} (calling convention "
                f"{self.calling_convention}), which JAX {jax.__version__} cannot read: {error}"
            ) from error
        self._run = _runner(jax.jit(self._exported.call), self._exported.nr_devices)

    @property
    def program(self) -> str:
        """The program as .sg text: what ``str(lowered.program)`` gave. Without its large captured arrays when
        they exceed a megabyte.
        """
        return zlib.decompress(self._blobs["program"]).decode()

    def as_text(self, dialect: str = "stategraph") -> str:
        """The program as ``stategraph`` or ``stablehlo`` text."""
        if dialect == "stategraph":
            return self.program
        if dialect == "stablehlo":
            return str(self._exported.mlir_module())
        raise ValueError(f"dialect is 'stategraph' or 'stablehlo', not {dialect!r}")

    # -------------------------------------------------------------------------------------------------- calls

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run; reads and writes ``states``."""
        inputs = self._take_arguments(args, kwargs)
        with self._lock:
            result, new, failures = self._execute(dict(self.states._leaves), dict(self.states._trees), inputs)
            for path, (leaves, tree) in new.items():
                self.states._put(path, leaves, tree)
        self._check(failures)
        return result

    def functional(self, states: Mapping[str, Any], *args: Any, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """``(result, new states)`` from a mapping of State values by path; ``self.states`` is not touched."""
        missing = sorted({path for path, _ in self._reads} - set(states))
        if missing:
            raise CallError(
                f"the mapping of States has no {', '.join('@' + path for path in missing)}; it has "
                f"{', '.join(sorted(states)) or 'nothing'}"
            )
        inputs = self._take_arguments(args, kwargs)
        leaves = {
            path: self._records[path].flatten(states[path])
            for path in states
            if path in self._records and not self._records[path].born
        }
        trees = {path: self._records[path].tree for path in leaves}
        result, new, failures = self._execute(leaves, trees, inputs)
        self._check(failures)
        return result, {**states, **{path: rebuild(tree, values) for path, (values, tree) in new.items()}}

    def _take_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        positional, named = self._arguments.children
        if len(args) != len(positional.children):
            raise CallError(
                f"{self.name!r} takes {len(positional.children)} arguments by position and was given "
                f"{len(args)}{self._call_form()}"
            )
        if set(kwargs) != set(named.keys):
            unknown, missing = sorted(set(kwargs) - set(named.keys)), sorted(set(named.keys) - set(kwargs))
            wrong = (
                f"has no argument {unknown[0]!r} by name" if unknown else f"needs the argument {missing[0]!r}"
            )
            raise CallError(f"{self.name!r} {wrong}{self._call_form()}")
        leaves = []
        for i, (child, value) in enumerate(zip(positional.children, args, strict=True)):
            leaves += flatten(child, value, f"argument {i}")
        for key, child in zip(named.keys, named.children, strict=True):
            leaves += flatten(child, kwargs[key], f"argument {key!r}")
        return [
            as_leaf(leaf, type, f"argument {name!r}")
            for leaf, type, name in zip(leaves, self._argument_types, self._argument_names, strict=True)
        ]

    def _call_form(self) -> str:
        positional, named = map(tree_text, self._arguments.children)
        names = ", ".join(self._argument_names) or "(none)"
        return f"; its arguments are {positional} by position and {named} by name, called {names}"

    def _execute(
        self, leaves: dict[str, list[Any]], trees: dict[str, Tree], inputs: Sequence[Any]
    ) -> tuple[Any, dict[str, tuple[list[Any], Tree]], Sequence[Any]]:
        self._check_platform()
        for path in self._changing:
            self._records[path].flatten(rebuild(trees[path], leaves[path]))
        read = [to_raw(leaves[path][i]) for path, i in self._reads]
        outputs = self._run(*read, *self._captured, *map(to_raw, inputs))
        count = len(self._result_types)
        after = count + (0 if self._checks is None else self._checks.leaves)
        results = [
            from_raw(leaf, type) for leaf, type in zip(outputs[:count], self._result_types, strict=True)
        ]
        changed: dict[str, dict[int, Any]] = {}
        for (path, i), leaf in zip(self._writes, outputs[after:], strict=True):
            changed.setdefault(path, {})[i] = from_raw(leaf, self._records[path].result_types[i])
        new = {}
        for path, values in changed.items():
            record = self._records[path]
            flat = [values[i] if i in values else leaves[path][i] for i in range(len(record.result_types))]
            new[path] = (flat, record.result_tree)
        return rebuild(self._results, results), new, outputs[count:after]

    def _check(self, failures: Sequence[Any]) -> None:
        if self._checks is not None:
            self._checks.raise_failure(failures)

    def _check_platform(self) -> None:
        backend = jax.default_backend()
        here = {"gpu": {"cuda", "rocm"}}.get(backend, {backend})
        if not here & set(self.platforms):
            raise CallError(
                f"{self.name!r} was exported for {', '.join(self.platforms)}, and this process runs on "
                f"{backend}"
            )

    def _check_x64(self, source: str) -> None:
        types = [
            *self._argument_types,
            *self._result_types,
            *(type for record in self._records.values() for type in (*record.types, *record.result_types)),
        ]
        if needs_x64(types):
            raise ExportError(
                f"{source} holds 64-bit arrays, which JAX cuts to 32 bits here\n  fix:   "
                f"jax.config.update('jax_enable_x64', True), or JAX_ENABLE_X64=1"
            )

    # ------------------------------------------------------------------------------------------------- saving

    def to_bytes(self) -> bytes:
        """The artefact, with the States as they are now."""
        arrays = _Arrays()
        with self._lock:
            states = [
                {
                    **entry,
                    "values": None
                    if record.born or record.path not in self.states
                    else arrays.add_all(self.states._leaves[record.path]),
                }
                for entry, record in zip(self._header["states"], self._records.values(), strict=True)
            ]
        header = {
            **self._header,
            "states": states,
            "captured": arrays.add_all(self._captured),
            "arrays": arrays.dtypes,
        }
        return container.pack(header, {**self._blobs, **arrays.blobs})

    def __reduce__(self) -> tuple[Any, ...]:
        return (load_exported, (self.to_bytes(),))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the artefact, with the States as they are now. The file is there whole or not at all."""
        container.write_file(path, self.to_bytes())

    def __repr__(self) -> str:
        inputs, results = len(self._argument_types), len(self._result_types)
        counts = f"{inputs} inputs, {len(self._records)} States, {results} results"
        return f"<exported @{self.name} for {', '.join(self.platforms)}: {counts}>"


class _Arrays:
    """The arrays of an artefact, in the order in which they are added."""

    def __init__(self) -> None:
        self.dtypes: list[str] = []
        self.blobs: dict[str, bytes] = {}

    def add_all(self, leaves: Sequence[Any]) -> list[int]:
        return [self.add(leaf) for leaf in leaves]

    def add(self, leaf: Any) -> int:
        number = len(self.dtypes)
        short, self.blobs[f"array/{number}"] = container.pack_array(to_host(leaf))
        self.dtypes.append(short)
        return number


def _record(entry: dict[str, Any]) -> StateRecord:
    return StateRecord(
        path=entry["path"],
        kind=entry["kind"],
        types=tuple(map(parse_type, entry["types"])),
        tree=parse_tree(entry["tree"]),
        result_types=tuple(map(parse_type, entry["result_types"])),
        result_tree=parse_tree(entry["result_tree"]),
        born=entry["born"],
        unit=entry.get("unit"),
    )


def load_exported(file: str | os.PathLike[str] | bytes) -> Exported:
    """Load an exported program, from a file or from its bytes; the model's source is not needed.

    Raises ``ExportError`` for anything that is not such a file: other bytes, a file cut off or damaged,
    another version.
    """
    if isinstance(file, (bytes, bytearray, memoryview)):
        return _load(bytes(file), "this")
    try:
        data = Path(file).read_bytes()
    except OSError as error:
        raise ExportError(f"cannot read {os.fspath(file)!r}: {error.strerror}") from error
    return _load(data, repr(os.fspath(file)))


def _load(data: bytes, source: str) -> Exported:
    header, blobs = container.unpack(data, source)
    try:
        return Exported(header, blobs, source)
    except (KeyError, IndexError, TypeError, ValueError, zlib.error, json.JSONDecodeError) as error:
        raise ExportError(
            f"{source} is no program that StateGraph {__version__} can read: {type(error).__name__}: {error}"
        ) from error


def _runner(run: Callable[..., Any], count: int) -> Callable[..., Any]:
    """``run`` for a program on several devices: each gets the whole inputs."""
    if count == 1:
        return run
    if count > len(jax.devices()):
        raise ExportError(
            f"the program was exported for {count} devices, and this process has {len(jax.devices())}"
        )
    mesh = jax.sharding.Mesh(jax.devices()[:count], ("devices",))
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return lambda *inputs: run(*jax.device_put(inputs, whole))
