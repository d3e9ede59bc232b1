"""The balanced networks: the rates that the review of simulators (Brette et al. 2007) gives, and irregular spikes."""

from collections.abc import Callable


def test_coba_keeps_itself_active(run_example: Callable[[str], dict[str, float]]) -> None:
    numbers = run_example("coba")
    assert 15 < numbers["rate"] < 25
    assert numbers["cv"] > 0.8, "irregular"


def test_cuba_is_irregular_though_each_neuron_alone_is_a_clock(
    run_example: Callable[[str], dict[str, float]],
) -> None:
    numbers = run_example("cuba")
    assert 4.5 < numbers["rate"] < 7
    assert numbers["cv"] > 0.2


def test_neurons_with_channels_do_what_brian2_found(
    run_example: Callable[[str], dict[str, float]],
) -> None:
    """Brian 2 with the same equations: 38.0 and 36.9 Hz, CV 2.1 over 1 s."""
    numbers = run_example("hodgkin_huxley")
    assert 25 < numbers["excitatory"] < 50
    assert numbers["cv"] > 0.3
