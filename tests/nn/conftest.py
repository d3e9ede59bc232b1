"""What tests of runs have in common; the network is in ``running_nets``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import stategraph as sg
from stategraph.nn import running_chunks
from tests.nn.running_nets import DT


@pytest.fixture
def time_step() -> Iterator[None]:
    """The time step of ``running_nets``."""
    with sg.environ.context(dt=DT):
        yield


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 20 steps."""
    monkeypatch.setattr(running_chunks, "LONGEST", 20)
    monkeypatch.setattr(running_chunks, "SHORTEST", 1)
