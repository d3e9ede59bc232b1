"""Binding Python functions of arrays as XLA calls: compiled by numba, called with XLA's call frame.

    kernel = bind(source, "axpy", inputs=[Tensor("f32", (n,)), ...], outputs=[Tensor("f32", (n,))])
    if kernel is None: ...                       # no numba, or it cannot compile this: take the generic path
    kernel(x, y)                                 # inside any JAX function: the results
    kernel.lowered(context, operands)            # in a lowering rule: the results' IR values

``source`` is the text of a module that defines the function ``entry`` over NumPy arrays, the inputs first and then the
outputs, all contiguous: ``entry(x, y, out)``. It writes its outputs and returns nothing. A scalar is an array of rank 0
(``x[()]``). bool is ``np.bool_`` (``x.view(np.uint8)`` for loops that should be vectorised). What ``native.runtime`` and
``native.kernels`` define is imported already, and so are ``np``, ``math`` and ``numba``; helper functions are decorated
with ``@njit``.
What ``aliases`` pairs, (input, output), is one buffer when XLA can arrange it: then the output holds the input's values
already. XLA copies when the caller still needs the input, so the output *always* holds them: read and write the
output, and leave that input alone.

A kernel runs in XLA's threads, several at a time: no global arrays, no Python objects, no parallel loops.

The target that XLA knows is named after a hash of the source, the types, this package's helpers, numba and the CPU:
a program that the persistent cache kept finds the same code or is compiled again. numba's own cache holds the
compiled code in ``$STATEGRAPH_CACHE`` (else ``~/.cache/stategraph``), so a kernel is compiled once for a machine.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import pathlib
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import jax

from stategraph import _jax
from stategraph.backends.native.frame import EXECUTE, METADATA, UnknownLayout, frame
from stategraph.ir.types import numpy_dtype

_NAMES = {
    "bool": "bool_",
    **{f"i{n}": f"int{n}" for n in (8, 16, 32, 64)},
    **{f"u{n}": f"uint{n}" for n in (8, 16, 32, 64)},
    "f32": "float32",
    "f64": "float64",
    "c64": "complex64",
    "c128": "complex128",
}
"""Dtypes of the IR that kernels can be compiled for."""


@attrs.frozen
class Tensor:
    """The type of a buffer: a dtype of the IR and a shape; a size of None is read when the kernel is called."""

    dtype: str
    shape: tuple[int | None, ...]


@attrs.frozen(eq=False)
class Kernel:
    """A compiled function that XLA knows by the name ``target``."""

    target: str
    outputs: tuple[Tensor, ...]
    aliases: tuple[tuple[int, int], ...]
    code: Any
    """What must live as long as the process: numba's function."""

    def __call__(self, *operands: Any, shapes: Sequence[tuple[int, ...]] | None = None) -> list[Any]:
        """Call it in a function of JAX, on the CPU; ``shapes`` of the results where the type leaves them open."""
        sizes = shapes if shapes is not None else [tensor.shape for tensor in self.outputs]
        results = [
            jax.ShapeDtypeStruct(tuple(n for n in shape if n is not None), numpy_dtype(tensor.dtype))
            for tensor, shape in zip(self.outputs, sizes, strict=True)
        ]
        call = jax.ffi.ffi_call(self.target, results, input_output_aliases=dict(self.aliases))
        return list(call(*operands))

    def lowered(self, context: Any, operands: Sequence[Any]) -> list[Any]:
        """The results' values, in a lowering rule: ``context`` and ``operands`` are the rule's own."""
        return _jax.lower_foreign_call(context, self.target, operands, dict(self.aliases))


_LOCK = threading.Lock()
_KERNELS: dict[str, Kernel | None] = {}
"""Every kernel of this process, by the hash of what it is; None for one that cannot be compiled."""


def bind(
    source: str,
    entry: str,
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    aliases: Sequence[tuple[int, int]] = (),
) -> Kernel | None:
    """The kernel for a function, compiled and known to XLA; None where the generic path has to be taken.

    Args:
      source: the text of a module that defines the function.
      entry: the function's name.
      inputs, outputs: the types of its arguments, in order.
      aliases: (input, output) pairs that share a buffer.

    Returns:
      The kernel, the same object for equal arguments. None, after one message for each process, when numba is not
      installed, when the installed XLA is not known, or when numba refuses the function.
    """
    if any(tensor.dtype not in _NAMES for tensor in (*inputs, *outputs)) or not available():
        return None
    text = _module(source, entry, inputs, outputs)
    key = hashlib.sha256("\0".join((text, repr(tuple(aliases)), _fingerprint())).encode()).hexdigest()[:24]
    with _LOCK:
        if key not in _KERNELS:
            try:
                _KERNELS[key] = _register(text, entry, key, outputs, aliases)
            except Exception as error:
                _KERNELS[key] = None
                _say(f"the native kernel {entry} cannot be compiled ({type(error).__name__}: {error})")
        return _KERNELS[key]


@functools.cache
def available() -> bool:
    """Whether kernels can be compiled and bound here; says once why not."""
    try:
        import numba  # noqa: F401
    except Exception as error:
        _say(f"native CPU kernels need numba ({error}); install it with: pip install 'stategraph[events]'")
        return False
    try:
        frame()
    except UnknownLayout as error:
        _say(f"native CPU kernels cannot be called by this XLA: {error}")
        return False
    return True


def _say(problem: str) -> None:
    warnings.warn(f"{problem}. XLA computes the same more slowly.", RuntimeWarning, stacklevel=4)


# --------------------------------------------------------------------------------------------------- the module


def _module(source: str, entry: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> str:
    """The text of the module that numba compiles: the kernel, and the handler that unpacks the call frame."""
    layout = frame()
    lines = []
    names = []
    for kind, tensors, at in (("args", inputs, layout.frame_args), ("rets", outputs, layout.frame_rets)):
        if tensors:
            lines.append(f"    {kind} = word(frame, {at})")
        for index, tensor in enumerate(tensors):
            name = f"{kind}{index}"
            names.append(name)
            lines.append(f"    buffer = word({kind}, {8 * index})")
            if None in tensor.shape:
                lines.append(f"    dims = word(buffer, {layout.buffer_dims})")
            sizes = [
                f"word(dims, {8 * axis})" if size is None else str(size)
                for axis, size in enumerate(tensor.shape)
            ]
            shape = f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"
            data = f"memory(word(buffer, {layout.buffer_data}))"
            lines.append(f"    {name} = numba.carray({data}, {shape}, np.{_NAMES[tensor.dtype]})")
    return _TEMPLATE.format(
        source=source,
        entry=entry,
        unpack="\n".join(lines),
        arguments=", ".join(names),
        layout=layout,
        major=layout.version[0],
        minor=layout.version[1],
        metadata=METADATA,
        execute=EXECUTE,
    )


_TEMPLATE = '''"""A native kernel of StateGraph, generated: see stategraph.backends.native.binding."""
import math

import numba
import numpy as np

from stategraph.backends.native.kernels import *
from stategraph.backends.native.runtime import *

{source}

_entry = njit({entry})


@numba.cfunc("int64(int64)", cache=True, error_model="numpy")
def handler(frame):
    extension = word(frame, {layout.frame_extension})
    if extension != 0:
        if half(extension, {layout.extension_type}) == {metadata}:  # which interface is this written for?
            metadata = word(extension, {layout.extension_metadata})
            put_half(metadata, {layout.metadata_major}, {major})
            put_half(metadata, {layout.metadata_minor}, {minor})
            put_half(metadata, {layout.metadata_traits}, 0)
            return 0
    if half(frame, {layout.frame_stage}) != {execute}:  # not yet time to run
        return 0
{unpack}
    _entry({arguments})
    return 0
'''


def _register(
    text: str, entry: str, key: str, outputs: Sequence[Tensor], aliases: Sequence[tuple[int, int]]
) -> Kernel:
    import ctypes

    name = f"stategraph_{entry}_{key}"
    code = _load(text, name).handler
    jax.local_devices(backend="cpu")  # a backend that is not there yet would refuse what is registered before
    jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(ctypes.c_void_p(code.address)), platform="cpu")
    return Kernel(name, tuple(outputs), tuple(aliases), code)


def _load(text: str, name: str) -> Any:
    """Import the module from a file, beside which numba keeps what it compiled."""
    last: Exception | None = None
    for folder in (_folder, lambda: pathlib.Path(tempfile.mkdtemp(prefix="stategraph-"))):
        try:
            path = folder() / f"{name}.py"
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                partial = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}")
                partial.write_text(text, encoding="utf-8")
                partial.replace(path)
            break
        except OSError as error:  # a home that cannot be written
            last = error
    else:
        raise last or OSError("no folder for kernels")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _folder() -> pathlib.Path:
    chosen = os.environ.get("STATEGRAPH_CACHE")
    root = pathlib.Path(chosen) if chosen else pathlib.Path.home() / ".cache" / "stategraph"
    path = root / "kernels"
    path.mkdir(parents=True, exist_ok=True)
    return path


@functools.cache
def _fingerprint() -> str:
    """What compiled code depends on besides its source: the helpers, numba, the CPU."""
    import llvmlite
    import numba
    from numba.core.registry import cpu_target

    here = pathlib.Path(__file__).parent
    helpers = b"".join((here / name).read_bytes() for name in ("runtime.py", "kernels.py"))
    cpu: Callable[[], Any] = cpu_target.target_context.codegen().magic_tuple
    parts = (numba.__version__, llvmlite.__version__, repr(cpu()), hashlib.sha256(helpers).hexdigest())
    return "\0".join(parts)
