"""Recurrent cells: one step of a recurrent network, whose hidden state is a ``HiddenState``.

A cell is made for inputs of ``num_in`` and outputs of ``num_out`` numbers (also called ``input_size`` and
``hidden_size``). ``init_state(batch_size)`` makes its hidden state, ``reset_state()`` puts it back, and a call with one
input makes one step. In the equations ``[x, h]`` is input and hidden state side by side, and ``*`` is element by element.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from stategraph import functional
from stategraph.errors import StateAccessError, describe
from stategraph.functional import sigmoid
from stategraph.init import Initial, Orthogonal, XavierNormal, ZeroInit, param
from stategraph.nn.linear import Linear
from stategraph.nn.module import Module
from stategraph.state import HiddenState

Activation = str | Callable[[Any], Any]
"""A function, or the name of one in ``stategraph.functional``."""


class RNNCell(Module):
    """Base class of recurrent cells. Write ``init_state``, ``reset_state`` and ``update``."""


class _Cell(RNNCell):
    """What the cells of this file share: sizes, an activation, and hidden states that begin as an initialiser says."""

    hidden: tuple[str, ...] = ("h",)
    """The attributes that are hidden states, each of the shape ``(num_out,)`` or ``(batch, num_out)``."""

    def _set_up(
        self,
        num_in: int | None,
        num_out: int | None,
        input_size: int | None,
        hidden_size: int | None,
        state_init: Initial,
        activation: Activation,
    ) -> tuple[int, int]:
        """(inputs, outputs)."""
        inputs = self._one_of("num_in", num_in, "input_size", input_size)
        outputs = self._one_of("num_out", num_out, "hidden_size", hidden_size)
        self.in_size = inputs
        self.out_size = outputs
        self.num_out = outputs
        self.num_in = inputs
        self._state_initializer = state_init
        self.activation = _function(activation)
        return inputs, outputs

    def _one_of(self, name: str, value: int | None, other: str, other_value: int | None) -> int:
        if (value is None) == (other_value is None):
            given = "neither" if value is None else "both"
            raise TypeError(
                f"{type(self).__name__} takes {name} or {other} (the same by another name), got {given}"
            )
        found = value if value is not None else other_value
        assert found is not None
        return int(found)

    def _first(self, leading: tuple[int, ...]) -> jax.Array:
        """What a hidden state holds at first."""
        shape = (*leading, self.num_out)
        return jnp.broadcast_to(jnp.asarray(param(self._state_initializer, shape, allow_none=False)), shape)

    def init_state(self, batch_size: int | None = None) -> None:
        """Make the hidden state.

        Args:
          batch_size: the length of its batch axis; None for none.
        """
        for name in self.hidden:
            setattr(self, name, HiddenState(self._first(() if batch_size is None else (batch_size,))))

    def reset_state(self, batch_size: int | None = None) -> None:
        """Put the hidden state back to where ``init_state`` left it.

        Args:
          batch_size: the length of its batch axis; None to keep the axes that it has.
        """
        for name in self.hidden:
            state = self._state(name)
            state.value = self._first(state.shape[:-1] if batch_size is None else (batch_size,))

    def _state(self, name: str) -> HiddenState[jax.Array]:
        state: HiddenState[jax.Array] | None = getattr(self, name, None)
        if state is None:
            raise StateAccessError(
                describe(
                    f"{type(self).__name__} has no hidden state yet.",
                    fix="stategraph.nn.init_all_states(model, batch_size=...) before the first step",
                )
            )
        return state

    def _joined(self, x: Any, h: jax.Array) -> jax.Array:
        """``[x, h]``."""
        given: jax.Array = jnp.asarray(x)
        if given.ndim == 0 or given.shape[-1] != self.num_in or given.shape[:-1] != h.shape[:-1]:
            batch = f", batch_size={given.shape[0]}" if given.ndim == 2 else ""
            raise ValueError(
                describe(
                    f"{type(self).__name__} is given an input of the shape {given.shape}.",
                    why=f"it has {self.num_in} inputs, and its hidden state has the shape {h.shape}",
                    fix=f"stategraph.nn.init_all_states(model{batch}) if the batch is what differs",
                )
            )
        return jnp.concatenate([given, h], axis=-1)


def _function(activation: Activation) -> Callable[[Any], Any]:
    if callable(activation):
        return activation
    if activation not in functional.__all__:
        raise ValueError(
            f"activation is a function or the name of one in stategraph.functional, not {activation!r}"
        )
    found: Callable[[Any], Any] = getattr(functional, activation)
    return found


class ValinaRNNCell(_Cell):
    """The simplest recurrent cell: ``h = activation(W [x, h])``. Elman, "Finding structure in time" (1990). Also called
    ``VanillaRNNCell``.

    Args:
      num_in: the number of inputs.
      num_out: the number of outputs, and of numbers in the hidden state.
      state_init: the hidden state at first.
      w_init: the weights at first, ``(num_in + num_out, num_out)``.
      b_init: the bias at first, ``(num_out,)``; None for no bias.
      activation: a function, or the name of one in ``stategraph.functional``.
      name: a name for messages and listings.
      input_size: another name of ``num_in``.
      hidden_size: another name of ``num_out``.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> cell = sg.nn.init_all_states(sg.nn.VanillaRNNCell(3, 4), batch_size=2)
    >>> cell(jnp.ones((2, 3))).shape, cell.h.value.shape
    ((2, 4), (2, 4))
    """

    h: HiddenState[jax.Array]

    def __init__(
        self,
        num_in: int | None = None,
        num_out: int | None = None,
        state_init: Initial = ZeroInit(),
        w_init: Initial = XavierNormal(),
        b_init: Initial = ZeroInit(),
        activation: Activation = "relu",
        name: str | None = None,
        *,
        input_size: int | None = None,
        hidden_size: int | None = None,
    ) -> None:
        super().__init__(name)
        inputs, outputs = self._set_up(num_in, num_out, input_size, hidden_size, state_init, activation)
        self.W = Linear(inputs + outputs, outputs, w_init, b_init)

    def update(self, x: Any) -> jax.Array:
        state = self._state("h")
        h: jax.Array = self.activation(self.W(self._joined(x, state.value)))
        state.value = h
        return h


VanillaRNNCell = ValinaRNNCell


class GRUCell(_Cell):
    """A gated recurrent unit: ``r, z = sigmoid(Wrz [x, h])``, ``g = activation(Wh [x, r * h])``,
    ``h = (1 - z) * h + z * g``. Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical
    machine translation" (EMNLP 2014).

    Args:
      num_in: the number of inputs.
      num_out: the number of outputs, and of numbers in the hidden state.
      w_init: the weights at first.
      b_init: the bias at first; None for no bias.
      state_init: the hidden state at first.
      activation: a function, or the name of one in ``stategraph.functional``.
      name: a name for messages and listings.
      input_size: another name of ``num_in``.
      hidden_size: another name of ``num_out``.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> cell = sg.nn.init_all_states(sg.nn.GRUCell(input_size=3, hidden_size=4))
    >>> cell(jnp.ones(3)).shape
    (4,)
    """

    h: HiddenState[jax.Array]

    def __init__(
        self,
        num_in: int | None = None,
        num_out: int | None = None,
        w_init: Initial = Orthogonal(),
        b_init: Initial = ZeroInit(),
        state_init: Initial = ZeroInit(),
        activation: Activation = "tanh",
        name: str | None = None,
        *,
        input_size: int | None = None,
        hidden_size: int | None = None,
    ) -> None:
        super().__init__(name)
        inputs, outputs = self._set_up(num_in, num_out, input_size, hidden_size, state_init, activation)
        self.Wrz = Linear(inputs + outputs, 2 * outputs, w_init, b_init)
        self.Wh = Linear(inputs + outputs, outputs, w_init, b_init)

    def update(self, x: Any) -> jax.Array:
        state = self._state("h")
        h = state.value
        r, z = jnp.split(sigmoid(self.Wrz(self._joined(x, h))), 2, axis=-1)
        g = self.activation(self.Wh(self._joined(x, r * h)))
        following: jax.Array = (1 - z) * h + z * g
        state.value = following
        return following


class MGUCell(_Cell):
    """A minimal gated unit: ``f = sigmoid(Wf [x, h])``, ``g = activation(Wh [x, f * h])``, ``h = (1 - f) * h + f * g``.
    Zhou et al., "Minimal gated unit for recurrent neural networks" (2016).

    Args:
      num_in: the number of inputs.
      num_out: the number of outputs, and of numbers in the hidden state.
      w_init: the weights at first.
      b_init: the bias at first; None for no bias.
      state_init: the hidden state at first.
      activation: a function, or the name of one in ``stategraph.functional``.
      name: a name for messages and listings.
      input_size: another name of ``num_in``.
      hidden_size: another name of ``num_out``.
    """

    h: HiddenState[jax.Array]

    def __init__(
        self,
        num_in: int | None = None,
        num_out: int | None = None,
        w_init: Initial = Orthogonal(),
        b_init: Initial = ZeroInit(),
        state_init: Initial = ZeroInit(),
        activation: Activation = "tanh",
        name: str | None = None,
        *,
        input_size: int | None = None,
        hidden_size: int | None = None,
    ) -> None:
        super().__init__(name)
        inputs, outputs = self._set_up(num_in, num_out, input_size, hidden_size, state_init, activation)
        self.Wf = Linear(inputs + outputs, outputs, w_init, b_init)
        self.Wh = Linear(inputs + outputs, outputs, w_init, b_init)

    def update(self, x: Any) -> jax.Array:
        state = self._state("h")
        h = state.value
        f = sigmoid(self.Wf(self._joined(x, h)))
        g = self.activation(self.Wh(self._joined(x, f * h)))
        following: jax.Array = (1 - f) * h + f * g
        state.value = following
        return following


class LSTMCell(_Cell):
    """A long short-term memory: ``i, g, f, o = W [x, h]``, ``c = sigmoid(f + 1) * c + sigmoid(i) * activation(g)``,
    ``h = sigmoid(o) * activation(c)``. Hochreiter and Schmidhuber, "Long short-term memory" (1997); the 1 that is added
    to the forget gate: Jozefowicz et al., "An empirical exploration of recurrent network architectures" (ICML 2015).

    Args:
      num_in: the number of inputs.
      num_out: the number of outputs, and of numbers in each of the hidden states ``h`` and ``c``.
      w_init: the weights at first, ``(num_in + num_out, 4 * num_out)``.
      b_init: the bias at first; None for no bias.
      state_init: the hidden states at first.
      activation: a function, or the name of one in ``stategraph.functional``.
      name: a name for messages and listings.
      input_size: another name of ``num_in``.
      hidden_size: another name of ``num_out``.
    """

    hidden = ("c", "h")
    c: HiddenState[jax.Array]
    h: HiddenState[jax.Array]

    def __init__(
        self,
        num_in: int | None = None,
        num_out: int | None = None,
        w_init: Initial = XavierNormal(),
        b_init: Initial = ZeroInit(),
        state_init: Initial = ZeroInit(),
        activation: Activation = "tanh",
        name: str | None = None,
        *,
        input_size: int | None = None,
        hidden_size: int | None = None,
    ) -> None:
        super().__init__(name)
        inputs, outputs = self._set_up(num_in, num_out, input_size, hidden_size, state_init, activation)
        self.W = Linear(inputs + outputs, 4 * outputs, w_init, b_init)

    def update(self, x: Any) -> jax.Array:
        state, cell = self._state("h"), self._state("c")
        i, g, f, o = jnp.split(self.W(self._joined(x, state.value)), 4, axis=-1)
        c = sigmoid(f + 1.0) * cell.value + sigmoid(i) * self.activation(g)
        h: jax.Array = sigmoid(o) * self.activation(c)
        cell.value = c
        state.value = h
        return h
