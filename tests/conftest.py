"""Settings of the test process, and a check of every program that any test builds.

Programs that come out of tracing or of a pipeline have to pass the verifier and survive their text form.
Tests that break programs on
purpose, or measure time, are marked ``no_program_checks``.
"""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Compiling is most of what the tests do: XLA runs its own passes, LLVM hardly any. Later XLA does not know the last flag,
# and would end the process.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    + (" --xla_cpu_use_fusion_emitters=false" if version("jaxlib").startswith("0.10.") else "")
    + (
        " --xla_gpu_enable_triton_gemm=false --xla_gpu_autotune_level=0"
        * ("cuda" in os.environ["JAX_PLATFORMS"])
    ),
)
os.environ.setdefault(
    "NVIDIA_TF32_OVERRIDE", "0"
)  # products of programs that are read from text have no precision

import functools
import gc
import hashlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import jax
import pytest

from stategraph import ir
from stategraph.passes.manager import PassManager
from stategraph.random import sampler
from stategraph.tracing import tracer
from tests.compiling import share_contexts
from tests.support import roundtrip, verify

jax.config.update("jax_platforms", os.environ["JAX_PLATFORMS"])  # also where JAX was imported before
jax.config.update("jax_enable_compilation_cache", False)
share_contexts()
hypothesis.settings.register_profile("suite", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("suite")
ON_CPU = os.environ["JAX_PLATFORMS"].startswith("cpu")
"""Whether programs run on a CPU; ``JAX_PLATFORMS=cuda,cpu`` runs the tests on a GPU."""
if not ON_CPU:
    jax.config.update("jax_default_matmul_precision", "highest")
# Eager draws are compiled like all else here: their bits are compared with those of plain JAX.
sampler.ON_CPUS["xla_backend_optimization_level"] = 0


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "no_program_checks: builds broken programs on purpose, or measures time"
    )
    config.addinivalue_line("markers", "for_cpus: expects that programs run on a CPU, or its machine code")


class ProgramChecker:
    """Verifies programs as they are built and remembers what is wrong; nothing is kept alive."""

    def __init__(self) -> None:
        self.enabled = False
        self.problems: list[str] = []
        self.seen: set[bytes] = set()
        self.busy = False

    def check(self, program: ir.Program, origin: str) -> None:
        if not self.enabled or self.busy:
            return
        self.busy = True
        try:
            digest = hashlib.sha256(str(program).encode()).digest()
            if digest in self.seen:
                return
            self.seen.add(digest)
            verify(program)
            roundtrip(program)
        except Exception as error:
            self.problems.append(f"@{program.name}, from {origin}: {type(error).__name__}: {error}")
        finally:
            self.busy = False

    def watch(self, function: Callable[..., Any], origin: str) -> Callable[..., Any]:
        """``function`` as it is, with a look at the program it gives."""

        @functools.wraps(function)
        def watched(*args: Any, **kwargs: Any) -> Any:
            outcome = function(*args, **kwargs)
            self.check(outcome.program, origin)
            return outcome

        return watched


CHECKER = ProgramChecker()
tracer._assemble = CHECKER.watch(tracer._assemble, "tracing")
PassManager.run = CHECKER.watch(PassManager.run, "a pipeline")  # type: ignore[method-assign]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        cpu_only = item.path.parent.name in ("native", "codegen") or item.get_closest_marker("for_cpus")
        if cpu_only and not ON_CPU:
            item.add_marker(pytest.mark.skip(reason="machine code for CPUs"))


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()  # what the imports made is not looked through again at each collection


def resident() -> float:
    """The memory of this process in bytes, where the system tells."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return math.inf


@pytest.fixture(autouse=True, scope="module")
def forget_compiled_programs() -> Iterator[None]:
    """What the tests compiled is kept while that needs little memory: all together would need many gigabytes."""
    yield
    if resident() > (2e9 if ON_CPU else 8e9):  # the libraries of a GPU alone take two
        jax.clear_caches()
        gc.collect()


@pytest.fixture(autouse=True)
def check_programs(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every program that the test builds is verified and printed and read back."""
    CHECKER.enabled = request.node.get_closest_marker("no_program_checks") is None
    CHECKER.problems.clear()
    yield
    CHECKER.enabled = False
    if CHECKER.problems:
        pytest.fail("programs of this test are broken:\n" + "\n\n".join(CHECKER.problems), pytrace=False)
