"""ResNet and Inception blocks."""

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest

import stategraph as sg


@pytest.mark.slow
def test_both_networks_learn(run_example: Callable[[str], dict[str, float]]) -> None:
    accuracies = run_example("convolutional_blocks")
    assert min(accuracies.values()) > 0.3, "chance is 0.1"


def test_a_residual_block_whose_convolutions_give_nothing_is_the_identity(
    load_example: Callable[[str], ModuleType],
) -> None:
    block = load_example("convolutional_blocks").ResidualBlock((4, 4, 2), 2)
    scale = block.second.layers[1].weight
    scale.value = {name: 0 * value for name, value in scale.value.items()}
    x = np.random.default_rng(0).random((3, 4, 4, 2), dtype=np.float32)
    np.testing.assert_array_equal(sg.compile.jit(block)(x), x)
