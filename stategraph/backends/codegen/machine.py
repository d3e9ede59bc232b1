"""From text to machine code of this processor, kept on disk, and registered where XLA finds it.

LLVM comes with llvmlite, which comes with numba (the extra ``events``). Without it there are no kernels. Object code is
kept in ``$STATEGRAPH_CACHE`` (else ``~/.cache/stategraph``), under a name that contains a hash of the code, the processor and
the compiler.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import re
import tempfile
import threading
from pathlib import Path
from typing import Any

import jax

from stategraph.backends.codegen.kernel import Code
from stategraph.backends.native import threads
from stategraph.backends.native.frame import frame

_LOCK = threading.RLock()
_KEPT: dict[str, Any] = {}
"""Execution engines, whose code has to stay where it is, by the name of the handler."""


def _target() -> Any:
    """The machine that code is made for, a new one for each engine, which owns it; raises ``ImportError`` without
    llvmlite.
    """
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    features = binding.get_host_cpu_features().flatten()
    return binding.Target.from_default_triple().create_target_machine(
        cpu=binding.get_host_cpu_name(), features=features, opt=3, jit=True
    )


@functools.cache
def description() -> str:
    """What machine code depends on besides its text; raises ``ImportError`` without llvmlite."""
    import llvmlite
    from llvmlite import binding

    features = binding.get_host_cpu_features().flatten()
    return f"{llvmlite.__version__} {binding.llvm_version_info} {binding.get_host_cpu_name()} {features}"


def contracts() -> bool:
    """Whether XLA rounds a product and a sum once: it does unless it is kept from using fused instructions."""
    return not re.search(r"xla_cpu_max_isa=(AVX|SSE4_2)\b", os.environ.get("XLA_FLAGS", ""))


def _file(code: Code) -> Path:
    directory = os.environ.get("STATEGRAPH_CACHE") or Path.home() / ".cache" / "stategraph"
    return Path(directory) / "kernels" / f"{code.handler}.o"


def _object(code: Code) -> bytes:
    """The object code, from disk or compiled."""
    file = _file(code)
    with contextlib.suppress(OSError):
        return file.read_bytes()
    made: bytes = optimized(code)[1]
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as part:
            part.write(made)
        os.replace(part.name, file)
    return made


def optimized(code: Code) -> tuple[str, bytes]:
    """(optimised LLVM text, object code)."""
    from llvmlite import binding

    machine = _target()
    module = binding.parse_assembly(code.text)
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    options = binding.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = options.slp_vectorization = options.loop_interleaving = True
    builder = binding.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    return str(module), machine.emit_object(module)


def address_of(code: Code) -> int:
    """The address of the handler of a kernel."""
    if code.shared:
        threads_ready()
    return _address(code, code.handler)


@functools.cache
def threads_ready() -> ctypes.c_int64:
    """Let kernels find the functions of ``native.threads``; returns how many threads each may have, which can be changed.
    Raises ``ImportError`` without llvmlite, ``UnknownLayout``.
    """
    from llvmlite import binding

    library, function = (None, "sched_yield") if os.name == "posix" else ("kernel32", "SwitchToThread")
    give_way = ctypes.cast(getattr(ctypes.CDLL(library), function), ctypes.c_void_p).value
    binding.add_symbol("stategraph_yield", give_way)
    names = threads.names(frame())
    processor = hashlib.sha256(description().encode()).hexdigest()[:16]
    code = Code(threads.text(frame()), f"{names['run']}_{processor}", 0, ())
    for name in threads.FUNCTIONS:
        binding.add_symbol(names[name], _address(code, names[name]))
    most = ctypes.c_int64.from_address(_address(code, names["limit"]))
    most.value = threads.limit()
    return most


def _address(code: Code, name: str) -> int:
    """The address of a function or of global data."""
    from llvmlite import binding

    with _LOCK:
        engine = _KEPT.get(code.handler)
        if engine is None:
            made, machine = _object(code), _target()
            empty = binding.parse_assembly("")
            empty.triple = machine.triple
            engine = binding.create_mcjit_compiler(empty, machine)
            engine.add_object_file(binding.ObjectFileRef.from_data(made))
            engine.finalize_object()
            _KEPT[code.handler] = engine
        address: int = engine.get_function_address(name) or engine.get_global_value_address(name)
        return address


_REGISTERED: set[str] = set()


def register(code: Code) -> str:
    """Make a kernel known to XLA; returns the name of its target."""
    with _LOCK:
        if code.handler not in _REGISTERED:
            jax.devices("cpu")  # registering before the backend runs would be too early
            jax.ffi.register_ffi_target(code.handler, jax.ffi.pycapsule(address_of(code)), platform="cpu")
            _REGISTERED.add(code.handler)
    return code.handler
