"""The demonstration of spiking networks: what it says of the programs."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import stategraph as sg


def test_the_loop_carries_state_and_products_are_events(
    load_example: Callable[[str], ModuleType],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    demo = load_example("spiking_demo")
    monkeypatch.setattr(demo, "SHORT_DURATION", 120.0)
    monkeypatch.setattr(demo, "COBA", lambda: load_example("cuba").CUBA(1000))
    monkeypatch.setattr(demo, "CUBA", lambda: load_example("cuba").CUBA(1000))
    numbers = demo.main(["--short", "--output", str(tmp_path)])
    assert numbers["CUBA"]["steps per second"] > 0
    shown = capsys.readouterr().out
    assert "flow.scan [length = 1200]" in shown and "event products" in shown and "{-#" not in shown
    for name in ("cuba.traced.sg", "cuba.optimized.sg", "coba.traced.sg"):
        assert "@network.neurons.V" in (tmp_path / name).read_text(encoding="utf-8")
    network = sg.nn.init_all_states(load_example("cuba").CUBA(100))
    before, after = (demo.figures(program) for program in demo.programs(network, 5.0).values())
    assert before["State accesses inside the loop"] > 0 == after["State accesses inside the loop"]
    assert after["event products"] + after["native kernels"] > 0
