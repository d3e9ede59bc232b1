"""The spiking readers of digits."""

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest

import stategraph as sg


def test_both_codes_are_learnt(run_example: Callable[[str], dict[str, float]]) -> None:
    accuracies = run_example("snn_digits")
    assert accuracies.keys() == {"rate", "latency"}
    assert min(accuracies.values()) > 0.5, "chance is 0.1"


@pytest.mark.parametrize("code", ["RateCode", "LatencyCode"])
def test_an_image_does_not_depend_on_the_one_before(
    load_example: Callable[[str], ModuleType], code: str
) -> None:
    example = load_example("snn_digits")
    sg.random.seed(0)
    model = example.SpikingReader(getattr(example, code)())
    sg.nn.init_all_states(model, batch_size=1)
    watch = sg.compile.jit(model.watch)
    pixels = np.random.default_rng(0).random((2, 64), dtype=np.float32)
    arriving, spikes, _ = (np.asarray(found) for found in watch(pixels))
    assert arriving.sum(0).mean() > 0 and set(np.unique(arriving)) == set(np.unique(spikes)) == {0, 1}
    if code == "LatencyCode":
        assert (arriving.sum(0) == (pixels > 0.1)).all()  # each pixel has its one spike
    watch(1 - pixels)
    sg.random.seed(0)
    first = watch(pixels)
    watch(1 - pixels)
    sg.random.seed(0)
    for a, b in zip(watch(pixels), first, strict=True):
        np.testing.assert_array_equal(a, b)
