"""Shardings at ``jit`` and on States: the tests proper need eight devices, and two processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT, run_on_devices

pytestmark = pytest.mark.core


def test_shardings_on_eight_devices() -> None:
    run_on_devices(Path(__file__).with_name("shardings_on_devices.py"))


def test_two_processes_train_one_model() -> None:
    """``jax.distributed`` on loopback: four devices in each of two processes make one mesh."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
    }
    worker = str(Path(__file__).with_name("one_of_two_processes.py"))
    running = [
        subprocess.Popen(
            [sys.executable, worker, address, str(number)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=240)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    if any("collectives" in text and "not" in text and "implement" in text for text in outputs):
        pytest.skip("this build of jaxlib has no collectives between processes on CPU")
    assert all(process.returncode == 0 for process in running), "\n----\n".join(t[-4000:] for t in outputs)
    lines = [text.strip().splitlines()[-1] for text in outputs]
    assert lines[0] == lines[1] and lines[0].startswith("agreed")
