"""Where the fields of a call frame are: the layout that XLA hands to a foreign function.

A handler gets the address of one ``XLA_FFI_CallFrame``. The layout is computed from the C header that comes with
JAX, so that it is that of the XLA which is installed; a header that cannot be understood means no native kernels.
Vocabulary: a *handler* is the function that XLA calls; at registration it is called once with a metadata extension and
answers with the version of the interface that it was written for.
"""

from __future__ import annotations

import functools
import pathlib
import re

import attrs
import jax

MAJOR = 0
"""The version of the interface that this code knows; a minor version adds fields."""
METADATA = 1
"""The type of the extension that asks for the version."""
EXECUTE = 3
"""The stage in which a handler computes."""

_STRUCT = re.compile(r"(?:typedef )?struct (XLA_FFI_\w+) \{(.*?)\n\}", re.DOTALL)
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_MEMBER = re.compile(r"_XLA_FFI_API_STRUCT_FIELD\((XLA_FFI_\w+)\)")
_SIZES = {"size_t": 8, "int64_t": 8, "uint64_t": 8, "int": 4, "int32_t": 4, "uint32_t": 4}
_FOUR_BYTES = re.compile(r"XLA_FFI_(DataType|ExecutionStage|(Internal)?Extension_Type|Handler_Traits)$")


class UnknownLayout(Exception):
    """The header is missing, or says something that this code does not understand."""


@attrs.frozen
class Request:
    """One function of XLA and the struct that it is given: a size, and fields at offsets."""

    function: int
    """Where the table of functions has its address."""
    size: int
    fields: tuple[int, ...]


@attrs.frozen
class Pool:
    """How a handler asks for XLA's threads."""

    frame_api: int
    """The table of functions."""
    frame_context: int
    count: Request
    """How many threads there are: of a context, written to an address."""
    schedule: Request
    """Run a task on one of them: in a context, a function, its argument."""
    forget: Request
    """Free an error, which the other two may return."""


@attrs.frozen
class Frame:
    """Offsets in bytes, from the beginning of the struct that is named first."""

    version: tuple[int, int]
    frame_extension: int
    frame_stage: int
    frame_args: int
    """The pointers to the buffers of the operands."""
    frame_rets: int
    extension_type: int
    extension_metadata: int
    metadata_major: int
    metadata_minor: int
    metadata_traits: int
    buffer_data: int
    buffer_dims: int
    pool: Pool


@functools.cache
def frame() -> Frame:
    """The layout of the installed XLA; raises ``UnknownLayout``."""
    path = pathlib.Path(jax.ffi.include_dir()) / "xla" / "ffi" / "api" / "c_api.h"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UnknownLayout(f"the header {path.name} cannot be read: {error}") from None
    return layout_of(text)


def layout_of(header: str) -> Frame:
    """The layout that a header describes; raises ``UnknownLayout``."""
    text = _MEMBER.sub(r"void* \1", _COMMENT.sub("", header))
    version = tuple(_number(text, f"XLA_FFI_API_{part}") for part in ("MAJOR", "MINOR"))
    if version[0] != MAJOR:
        raise UnknownLayout(f"XLA's interface has version {version[0]}.{version[1]}, and {MAJOR}.x is known")
    structs = {name: _fields(body) for name, body in _STRUCT.findall(text)}

    def at(struct: str, *path: str) -> int:
        offset = 0
        for name in path:
            offsets, kinds = _offsets(struct, structs)
            if name not in offsets:
                raise UnknownLayout(f"{struct} has no field {name}")
            offset, struct = offset + offsets[name], kinds[name]
        return offset

    def request(name: str, *fields: str) -> Request:
        struct = f"XLA_FFI_{name}_Args"
        return Request(
            at("XLA_FFI_Api", f"XLA_FFI_{name}"),
            _offsets(struct, structs)[0][""],
            tuple(at(struct, field) for field in fields),
        )

    if (
        _number(text, "XLA_FFI_Extension_Metadata", " = ") != METADATA
        or _number(text, "XLA_FFI_ExecutionStage_EXECUTE", " = ") != EXECUTE
    ):
        raise UnknownLayout("the numbers of stages and extensions have changed")
    return Frame(
        version=(version[0], version[1]),
        frame_extension=at("XLA_FFI_CallFrame", "extension_start"),
        frame_stage=at("XLA_FFI_CallFrame", "stage"),
        frame_args=at("XLA_FFI_CallFrame", "args", "args"),
        frame_rets=at("XLA_FFI_CallFrame", "rets", "rets"),
        extension_type=at("XLA_FFI_Metadata_Extension", "extension_base", "type"),
        extension_metadata=at("XLA_FFI_Metadata_Extension", "metadata"),
        metadata_major=at("XLA_FFI_Metadata", "api_version", "major_version"),
        metadata_minor=at("XLA_FFI_Metadata", "api_version", "minor_version"),
        metadata_traits=at("XLA_FFI_Metadata", "traits"),
        buffer_data=at("XLA_FFI_Buffer", "data"),
        buffer_dims=at("XLA_FFI_Buffer", "dims"),
        pool=Pool(
            frame_api=at("XLA_FFI_CallFrame", "api"),
            frame_context=at("XLA_FFI_CallFrame", "ctx"),
            count=request("ThreadPool_NumThreads", "ctx", "num_threads"),
            schedule=request("ThreadPool_Schedule", "ctx", "task", "data"),
            forget=request("Error_Destroy", "error"),
        ),
    )


def _number(text: str, name: str, between: str = r"\s+") -> int:
    found = re.search(rf"{name}{between}(\d+)", text)
    if found is None:
        raise UnknownLayout(f"the header does not define {name}")
    return int(found[1])


def _fields(body: str) -> list[tuple[str, str]]:
    """(type, name) of each field."""
    found = []
    for line in body.split(";"):
        words = line.replace("*", " * ").split()
        if words:
            found.append((" ".join(words[:-1]), words[-1]))
    return found


def _offsets(struct: str, structs: dict[str, list[tuple[str, str]]]) -> tuple[dict[str, int], dict[str, str]]:
    """(offset, type) of each field, by name; '' names the end."""
    if struct not in structs:
        raise UnknownLayout(f"the header does not define {struct}")
    offsets: dict[str, int] = {}
    kinds: dict[str, str] = {}
    end = 0
    for kind, name in structs[struct]:
        size, alignment = _size(kind, structs)
        end = -(-end // alignment) * alignment
        offsets[name], kinds[name] = end, kind.removeprefix("struct ")
        end += size
    offsets[""] = end
    return offsets, kinds


def _size(kind: str, structs: dict[str, list[tuple[str, str]]]) -> tuple[int, int]:
    """(size, alignment) of a type."""
    kind = kind.removeprefix("const ").removeprefix("struct ")
    if kind.endswith("*"):
        return 8, 8
    if kind in _SIZES:
        return _SIZES[kind], _SIZES[kind]
    if kind in structs:
        alignment = max(_size(inner, structs)[1] for inner, _ in structs[kind])
        end = _offsets(kind, structs)[0][""]
        return -(-end // alignment) * alignment, alignment
    if _FOUR_BYTES.match(kind):
        return 4, 4
    raise UnknownLayout(f"the size of {kind} is not known")
