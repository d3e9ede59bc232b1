"""Shards of data and State: the tests proper need eight devices, and a process has as many as it started with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import run_on_devices

pytestmark = pytest.mark.core


def test_state_in_functions_over_shards_on_eight_devices() -> None:
    here = Path(__file__).parent
    run_on_devices(here / "shards_on_devices.py", here / "augmented_on_devices.py")
