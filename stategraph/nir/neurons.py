"""The neurons of NIR as modules: one step of their equations at a time.

Equations: Pedersen et al., "Neuromorphic intermediate representation: a unified instruction set for interoperable
brain-inspired computing" (Nature Communications 2024), table 1. Coefficients of a step are computed once, in double precision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from stategraph import environ
from stategraph.errors import NIRError, describe
from stategraph.nir.choices import Choices
from stategraph.nn.module import Module
from stategraph.state import HiddenState, State
from stategraph.surrogate import ReluGrad

Spike = Callable[[Any], Any]


class NIRModule(Module):
    """Base class of what stands for a node.

    Attributes:
      node: the name of the node.
      shape_in, shape_out: the shapes of input and output, without a batch.
    """

    KIND: ClassVar[str] = ""
    """The class of the node in NIR."""
    RESTS: ClassVar[bool] = False
    """Whether its output before the first step is ``at_rest()``, not that of ``update`` for what its inputs give then."""

    def __init__(self, node: str, shape_in: tuple[int, ...], shape_out: tuple[int, ...]) -> None:
        super().__init__(node)
        self.node = node
        self.shape_in = self.in_size = shape_in
        self.shape_out = self.out_size = shape_out

    def at_rest(self) -> jax.Array:
        """What it gives before the first step, without a batch."""
        return jnp.zeros(self.shape_out, environ.dftype())

    def checked(self, x: Any) -> jax.Array:
        """An input, which has to end with ``shape_in``."""
        given: jax.Array = jnp.asarray(x)
        if given.shape[max(0, given.ndim - len(self.shape_in)) :] != self.shape_in:
            raise NIRError(
                describe(
                    f"The node {self.node!r} is given an input of the shape {given.shape}.",
                    why=f"its shape is {self.shape_in}, and batch axes come before it",
                )
            )
        return given


class NIRNeuron(NIRModule):
    """Base class of nodes with State.

    Args:
      node: the name of the node.
      parameters: the arrays of the node, by NIR's names, all of one shape.
      choices: how steps are made.
      spk_fun: what makes spikes of the distance from the threshold: a surrogate.
    """

    STATES: ClassVar[tuple[str, ...]] = ("v",)
    SPIKES: ClassVar[bool] = False
    RESTS = True

    v: HiddenState[Any]

    def __init__(
        self,
        node: str,
        parameters: Mapping[str, np.ndarray],
        choices: Choices,
        spk_fun: Spike = ReluGrad(),  # noqa: B008 -- immutable
    ) -> None:
        shape = next(iter(parameters.values())).shape
        super().__init__(node, shape, shape)
        self.arrays = {name: np.asarray(value, np.float64) for name, value in parameters.items()}
        self.choices = choices
        self.spk_fun = spk_fun
        for name, value in self.arrays.items():
            if name.startswith("tau") and not np.all(value > 0):
                raise NIRError(
                    describe(
                        f"{name} of the node {node!r} is not positive.", why="the equations divide by it"
                    )
                )
        self.dt = choices.step(node)
        self._coefficients = self._prepared()

    # ----------------------------------------------------------------------------------------------- coefficients

    def _prepared(self) -> dict[str, np.ndarray]:
        raise NotImplementedError

    def _relaxation(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """(a, b) of a step ``x = a x + b target`` towards a target, with the time constant of a name."""
        ratio = self.dt / self.arrays[name]
        if self.choices.integrator == "exact":
            return np.exp(-ratio), -np.expm1(-ratio)
        return 1 - ratio, ratio

    def _numbers(self) -> dict[str, Any]:
        """Coefficients and parameters in the type that is computed with."""
        dtype = environ.dftype()
        return {
            name: jnp.asarray(value, dtype) for name, value in {**self.arrays, **self._coefficients}.items()
        }

    # ------------------------------------------------------------------------------------------------------ State

    def _attributes(self) -> dict[str, Any]:
        """What the program shows."""
        found: dict[str, Any] = {"nir": self.KIND, "dt": self.dt, "integrator": self.choices.integrator}
        return {**found, "reset": self.choices.reset, "spikes": self.choices.spikes} if self.SPIKES else found

    def _first(self, name: str, batch: tuple[int, ...]) -> jax.Array:
        """What a State holds at first: the potential is at ``v_leak``, all else is 0."""
        value = self.arrays.get("v_leak", 0.0) if name == "v" else 0.0
        return jnp.broadcast_to(jnp.asarray(value, environ.dftype()), (*batch, *self.shape_in))

    def at_rest(self) -> jax.Array:
        return super().at_rest() if self.SPIKES else self._first("v", ())

    def init_state(self, batch_size: int | None = None) -> None:
        """Make the State, with a batch axis of the length ``batch_size`` if that is not None."""
        batch = () if batch_size is None else (batch_size,)
        for name in self.STATES:
            setattr(self, name, HiddenState(self._first(name, batch), attributes=self._attributes()))

    def reset_state(self, batch_size: int | None = None) -> None:
        """Put the State back to where ``init_state`` left it."""
        for name in self.STATES:
            state: State[Any] = getattr(self, name)
            kept = state.shape[: len(state.shape) - len(self.shape_in)]
            state.value = self._first(name, kept if batch_size is None else (batch_size,))

    # ----------------------------------------------------------------------------------------------------- spikes

    def _spikes(self, x: jax.Array) -> jax.Array:
        """1 where ``x`` is above 0, else 0 (or from 0 on, as chosen), with the gradient of the surrogate."""
        spikes: jax.Array = self.spk_fun(x) if self.choices.spikes == "at" else 1 - self.spk_fun(-x)
        return spikes

    def _finished(self, v: jax.Array, p: Mapping[str, Any]) -> jax.Array:
        """The end of a step: the output, after the reset of what spiked."""
        if not self.SPIKES:
            self.v.value = v
            return v
        spikes = self._spikes(v - p["v_threshold"])
        if self.choices.reset == "subtract":
            self.v.value = v - spikes * (p["v_threshold"] - p["v_reset"])
        else:
            self.v.value = jnp.where(spikes > 0, p["v_reset"], v)
        return spikes


class I(NIRNeuron):  # noqa: E742 -- NIR's name
    """``dv/dt = r x``; gives ``v``."""

    KIND = "I"

    def _prepared(self) -> dict[str, np.ndarray]:
        return {"gain": self.dt * self.arrays["r"]}

    def update(self, x: Any) -> jax.Array:
        """One step."""
        p = self._numbers()
        return self._finished(self.v.value + p["gain"] * self.checked(x), p)


class IF(I):
    """``dv/dt = r x``; a spike above ``v_threshold``, and the reset."""

    KIND = "IF"
    SPIKES = True


class LI(NIRNeuron):
    """``tau dv/dt = v_leak - v + r x``; gives ``v``."""

    KIND = "LI"

    def _prepared(self) -> dict[str, np.ndarray]:
        decay, gain = self._relaxation("tau")
        return {"decay": decay, "gain": gain * self.arrays["r"], "leak": gain * self.arrays["v_leak"]}

    def update(self, x: Any) -> jax.Array:
        """One step."""
        p = self._numbers()
        return self._finished(p["decay"] * self.v.value + p["leak"] + p["gain"] * self.checked(x), p)


class LIF(LI):
    """``tau dv/dt = v_leak - v + r x``; a spike above ``v_threshold``, and the reset."""

    KIND = "LIF"
    SPIKES = True


class CubaLI(NIRNeuron):
    """``tau_syn di/dt = -i + w_in x``, ``tau_mem dv/dt = v_leak - v + r i``; gives ``v``."""

    KIND = "CubaLI"
    STATES = ("v", "i")

    i: HiddenState[Any]

    def _prepared(self) -> dict[str, np.ndarray]:
        p = self.arrays
        held, gained = self._relaxation("tau_syn")
        decay, gain = self._relaxation("tau_mem")
        found = {"held": held, "gained": gained * p["w_in"], "decay": decay, "leak": gain * p["v_leak"]}
        if self.choices.integrator != "exact":
            return {**found, "by_current": gain * p["r"]}
        # The potential also follows what is left of the old current: r (i - w_in x) times the integral
        # (1 / tau_mem) ∫ exp(-(dt - s) / tau_mem) exp(-s / tau_syn) ds from 0 to dt.
        left = (
            np.exp(-self.dt / p["tau_mem"])
            * self.dt
            / p["tau_mem"]
            * _growth(self.dt / p["tau_mem"] - self.dt / p["tau_syn"])
        )
        return {**found, "by_current": left * p["r"], "by_input": (gain - left) * p["r"] * p["w_in"]}

    def update(self, x: Any) -> jax.Array:
        """One step."""
        p, before, x = self._numbers(), self.i.value, self.checked(x)
        self.i.value = p["held"] * before + p["gained"] * x
        v = p["decay"] * self.v.value + p["leak"]
        if self.choices.integrator == "exact":
            v = v + p["by_current"] * before + p["by_input"] * x
        elif self.choices.integrator == "euler":
            v = v + p["by_current"] * before
        else:
            v = v + p["by_current"] * self.i.value
        return self._finished(v, p)


class CubaLIF(CubaLI):
    """``tau_syn di/dt = -i + w_in x``, ``tau_mem dv/dt = v_leak - v + r i``; a spike above ``v_threshold``, and the reset."""

    KIND = "CubaLIF"
    SPIKES = True


def _growth(x: np.ndarray) -> np.ndarray:
    """``(exp(x) - 1) / x``, 1 at 0."""
    safe = np.where(x == 0, 1.0, x)
    found: np.ndarray = np.where(x == 0, 1.0, np.expm1(safe) / safe)
    return found


class Threshold(NIRModule):
    """1 where the input is above ``threshold``, else 0."""

    KIND = "Threshold"

    def __init__(
        self,
        node: str,
        threshold: np.ndarray,
        choices: Choices,
        spk_fun: Spike = ReluGrad(),  # noqa: B008 -- immutable
    ) -> None:
        super().__init__(node, threshold.shape, threshold.shape)
        self.threshold = np.asarray(threshold, np.float64)
        self.choices = choices
        self.spk_fun = spk_fun

    def update(self, x: Any) -> jax.Array:
        """The spikes."""
        distance = self.checked(x) - jnp.asarray(self.threshold, environ.dftype())
        spikes: jax.Array = (
            self.spk_fun(distance) if self.choices.spikes == "at" else 1 - self.spk_fun(-distance)
        )
        return spikes


NEURONS: dict[str, type[NIRNeuron]] = {kind.KIND: kind for kind in (I, IF, LI, LIF, CubaLI, CubaLIF)}
"""The classes of neurons by NIR's names."""
