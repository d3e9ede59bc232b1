"""Gap junctions: two cells against the exact solution, conservation, what is refused."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import nn

DT = 0.05


def passive(size: int) -> Any:
    """Cells that do not spike: a leak of 10 nS, 20 ms."""
    return nn.LIF(size, R=100.0, tau=20.0, V_th=1e3)


def steps(junction: Any, populations: list[Any], currents: list[Any], count: int) -> list[np.ndarray]:
    """The potentials of the populations after each step."""

    def step(i: Any) -> Any:
        junction()
        for population, current in zip(populations, currents, strict=True):
            population(current)
        return [population.V.value for population in populations]

    with sg.environ.context(dt=DT):
        return [np.asarray(V) for V in sg.compile.for_loop(step, jnp.arange(count))]


def test_two_cells_against_the_exact_solution() -> None:
    """Their sum decays with tau, their difference with tau / (1 + 2 g / g_leak)."""
    cells = passive(2)
    cells.V_initializer = jnp.array([8.0, 2.0])
    junction = nn.SymmetryGapJunction(cells, "V", lambda pre, post: ([0], [1]), weight=5.0)
    nn.init_all_states(cells)
    (V,) = steps(junction, [cells], [0.0], 800)
    t = DT * np.arange(1, 801)
    np.testing.assert_allclose(V.sum(1), 10 * np.exp(-t / 20), rtol=1e-4)
    np.testing.assert_allclose(V[:, 0] - V[:, 1], 6 * np.exp(-t / 20 * 2), rtol=5e-3, atol=5e-3)


def test_what_leaves_one_population_arrives_at_the_other() -> None:
    one, other = passive(3), passive(4)
    junction = nn.SymmetryGapJunction(
        (one, other), ("V", "V"), lambda pre, post: ([0, 0, 2], [1, 3, 3]), weight=jnp.array([1.0, 2.0, 3.0])
    )
    nn.init_all_states([one, other])
    V, U = steps(junction, [one, other], [jnp.array([0.1, 0.2, 0.3]), 0.0], 10000)
    total = V[-1].sum() + U[-1].sum()
    np.testing.assert_allclose(total, 100 * 0.6, rtol=1e-3)  # all of the current leaves through leaks
    leak = 10.0
    balance = leak * U[-1, 3] - 2 * (V[-1, 0] - U[-1, 3]) - 3 * (V[-1, 2] - U[-1, 3])
    assert abs(balance) < 0.05, "Kirchhoff"
    assert U[-1, 0] == 0 and V[-1, 1] == pytest.approx(20, rel=1e-3), "not coupled"


def test_rectifying_junctions_have_two_conductances() -> None:
    cells = passive(3)
    both = jnp.array([[10.0, 0.0], [0.0, 10.0]])
    junction = nn.AsymmetryGapJunction(cells, "V", cells, "V", lambda pre, post: ([0, 0], [1, 2]), both)
    nn.init_all_states(cells)
    (V,) = steps(junction, [cells], [jnp.array([0.2, 0.0, 0.0])], 8000)
    np.testing.assert_allclose(
        V[-1], [10.0, 5.0, 0.0], rtol=1e-3
    )  # the first loses to the third, feeds the second


def test_batches_and_gradients() -> None:
    cells = passive(2)
    junction = nn.SymmetryGapJunction(cells, "V", lambda pre, post: ([0], [1]), weight=4.0)
    nn.init_all_states(cells, batch_size=3)
    (V,) = steps(junction, [cells], [jnp.array([[0.1, 0.0]] * 3)], 50)
    assert V.shape == (50, 3, 2) and (V[-1, :, 1] > 0).all()

    def reached() -> Any:
        nn.reset_all_states(cells)

        def step(i: Any) -> Any:
            junction()
            cells(jnp.array([[0.1, 0.0]] * 3))

        with sg.environ.context(dt=DT):
            sg.compile.for_loop(step, jnp.arange(50))
        return cells.V.value[0, 1]

    slope = sg.augment.grad(reached, junction.weight)()
    assert float(slope.sum()) == pytest.approx(V[-1, 0, 1] / 4, rel=0.05), "nearly linear in the conductance"


def test_what_is_refused() -> None:
    cells = passive(2)
    with pytest.raises(TypeError, match="couples a Linear"):
        nn.SymmetryGapJunction((cells, nn.Linear(2, 2)), "V", lambda a, b: ([0], [1]), 1.0)
    with pytest.raises(TypeError, match="conn is a function"):
        nn.SymmetryGapJunction(cells, "V", ([0], [1]), 1.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one of each for every pair"):
        nn.SymmetryGapJunction(cells, "V", lambda a, b: ([0, 1], [1]), 1.0)
    with pytest.raises(ValueError, match="integers from 0 to 1"):
        nn.SymmetryGapJunction(cells, "V", lambda a, b: ([0], [2]), 1.0)
    with pytest.raises(ValueError, match="does not fit"):
        nn.AsymmetryGapJunction(cells, "V", cells, "V", lambda a, b: ([0], [1]), jnp.ones(3))
    junction = nn.SymmetryGapJunction(cells, "U", lambda a, b: ([0], [1]), 1.0)
    with pytest.raises(AttributeError, match="no attribute 'U'"):
        junction()
