"""Threads that share the loops of kernels: nobody can tell from the results how many there were."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stategraph.backends.codegen import machine
from stategraph.backends.native import threads
from stategraph.backends.native.frame import frame

pytest.importorskip("llvmlite")

ROOT = Path(__file__).resolve().parents[3]
DEVICES = "--xla_force_host_platform_device_count=2"


@pytest.mark.parametrize(
    ("arguments", "flags"), [((), DEVICES), (("alone",), f"{DEVICES} --xla_cpu_multi_thread_eigen=false")]
)
def test_results_do_not_depend_on_threads(arguments: tuple[str, ...], flags: str) -> None:
    """In a process with four threads, and in one whose XLA has none to give."""
    environment = {**os.environ, "NPROC": "4", "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.backends.codegen.many_threads", *arguments]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "equal", done.stdout + done.stderr[-3000:]


def test_rows_are_split_where_they_are_in_order() -> None:
    from llvmlite import binding

    machine.threads_ready()
    address = binding.address_of_symbol(threads.names(frame())["split"])
    number = ctypes.c_int64
    split = ctypes.CFUNCTYPE(number, ctypes.c_void_p, number, number, number)(address)
    random = np.random.default_rng(0)
    for length in [*range(70), 100, 128, 1000]:
        for _ in range(10):
            row = np.sort(random.integers(0, 50, length))
            if length > 1 and random.random() < 0.4:
                first, second = random.integers(0, length, 2)
                row[first], row[second] = row[second], row[first]
            indices = np.concatenate([random.integers(0, 50, 5), row, random.integers(0, 50, 3)]).astype(
                np.int32
            )
            bound = int(random.integers(0, 52))
            below = int((row < bound).sum())
            wanted = 5 + below if (row[:below] < bound).all() else -1
            assert split(indices.ctypes.data, 5, 5 + length, bound) == wanted


@pytest.mark.parametrize(
    ("given", "wanted"), [("", threads.MOST), ("1", 1), ("0", 1), ("3", 3), ("99", 16), ("x", 16)]
)
def test_the_environment_limits_threads(monkeypatch: pytest.MonkeyPatch, given: str, wanted: int) -> None:
    monkeypatch.setenv("STATEGRAPH_THREADS", given)
    assert threads.limit() == wanted
