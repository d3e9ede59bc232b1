"""The working memory: what was shown is silent, and comes back when all neurons get a little more."""

from collections.abc import Callable

import numpy as np


def test_the_item_that_was_shown_comes_back(run_example: Callable[[str], dict[str, list[float]]]) -> None:
    rates = {name: np.array(values) for name, values in run_example("working_memory").items()}
    others = np.arange(5) != 2
    assert rates["shown"][2] > 10 and rates["shown"][others].max() < 1
    assert rates["silent"].max() < 1.5, "nothing is active in between"
    assert rates["readout"][2] > 3 and rates["readout"][2] > 3 * rates["readout"][others].max()
