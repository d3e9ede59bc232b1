"""Linear layers: dense, masked, all-to-all, one-to-one, sparse, and low-rank additions.

Each keeps its parameters in one State, ``weight``, a dict with ``'weight'`` and, where there is a bias, ``'bias'``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stategraph.errors import describe
from stategraph.init import Initial, KaimingNormal, LecunNormal, Normal, ZeroInit, param
from stategraph.nn.module import Module
from stategraph.state import ParamState, State
from stategraph.typing import Size

ParamType = Callable[[Any], State[Any]]
"""The kind of State that holds the parameters: ``ParamState``, or for constants ``FakeState``."""


class _Linear(Module):
    """What linear layers share: sizes whose leading axes agree, and parameters in one State."""

    weight: State[Any]
    _in_size: tuple[int, ...]
    _out_size: tuple[int, ...]

    def _set_sizes(self, in_size: Size, out_size: Size) -> tuple[int, int]:
        """(inputs, outputs): the last axes."""
        self.in_size, self.out_size = in_size, out_size
        inputs, outputs = self._in_size, self._out_size
        if not inputs or not outputs or inputs[:-1] != outputs[:-1]:
            raise ValueError(
                describe(
                    f"A {type(self).__name__} from {inputs} to {outputs} is not possible.",
                    why="it changes the last axis; those before it have to be the same",
                    fix=f"out_size={(*inputs[:-1], outputs[-1] if outputs else 1)}",
                )
            )
        return inputs[-1], outputs[-1]

    def _set_parameters(self, weight: Any, b_init: Initial, outputs: Size, param_type: ParamType) -> None:
        parameters = {"weight": weight}
        if b_init is not None:
            parameters["bias"] = param(b_init, outputs, allow_scalar=False)
        self.weight = param_type(parameters)

    def _checked(self, x: Any) -> jax.Array:
        """The input as an array, if its last axis has the right length."""
        given: jax.Array = jnp.asarray(x)
        inputs = self._in_size[-1]
        if given.ndim == 0 or given.shape[-1] != inputs:
            raise ValueError(
                describe(
                    f"{type(self).__name__} is given an input of the shape {given.shape}.",
                    why=f"its last axis has to have the length {inputs}, of in_size={self._in_size}",
                )
            )
        return given


def _biased(y: jax.Array, parameters: dict[str, jax.Array]) -> jax.Array:
    return y + parameters["bias"] if "bias" in parameters else y


class Linear(_Linear):
    """A dense layer: ``y = x @ weight + bias``, on the last axis.

    Args:
      in_size: the size of an input: a number, or a shape whose last axis counts.
      out_size: the size of an output; a shape has the leading axes of ``in_size``.
      w_init: the weights at first, ``(inputs, outputs)``.
      b_init: the bias at first, ``(outputs,)``; None for no bias.
      w_mask: what the weights are multiplied with in every call, such as zeros where there is no connection: an array
        that broadcasts to ``(inputs, outputs)``, or an initialiser. It is not trained.
      name: a name for messages and listings.
      param_type: the kind of State that holds the parameters.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> layer = sg.nn.Linear(2, 3)
    >>> layer(jnp.ones((5, 2))).shape, layer.weight.value["bias"].shape
    ((5, 3), (3,))
    """

    def __init__(
        self,
        in_size: Size,
        out_size: Size,
        w_init: Initial = KaimingNormal(),
        b_init: Initial = ZeroInit(),
        w_mask: Initial = None,
        name: str | None = None,
        param_type: ParamType = ParamState,
    ) -> None:
        super().__init__(name)
        inputs, outputs = self._set_sizes(in_size, out_size)
        self.w_mask = param(w_mask, (inputs, outputs))
        weight = param(w_init, (inputs, outputs), allow_none=False, allow_scalar=False)
        self._set_parameters(weight, b_init, outputs, param_type)

    def update(self, x: Any) -> jax.Array:
        parameters = self.weight.value
        weight = parameters["weight"]
        if self.w_mask is not None:
            weight = weight * self.w_mask
        return _biased(self._checked(x) @ weight, parameters)


class AllToAll(_Linear):
    """Connections from every input to every output, on the last axis: a dense layer that can leave out the
    connections of an element with itself, and whose weight can be a single number.

    Args:
      in_size: the size of an input.
      out_size: the size of an output.
      w_init: the weights at first, ``(inputs, outputs)``; or a number, for one weight that all connections share.
      b_init: the bias at first, ``(outputs,)``; None for no bias.
      include_self: whether input ``i`` is connected with output ``i``.
      name: a name for messages and listings.
      param_type: the kind of State that holds the parameters.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> sg.nn.AllToAll(3, 3, w_init=2.0, include_self=False)(jnp.array([1.0, 2.0, 3.0]))
    Array([10.,  8.,  6.], dtype=float32)
    """

    def __init__(
        self,
        in_size: Size,
        out_size: Size,
        w_init: Initial = KaimingNormal(),
        b_init: Initial = None,
        include_self: bool = True,
        name: str | None = None,
        param_type: ParamType = ParamState,
    ) -> None:
        super().__init__(name)
        inputs, outputs = self._set_sizes(in_size, out_size)
        self.include_self = include_self
        weight = param(w_init, (inputs, outputs), allow_none=False)
        self._set_parameters(weight, b_init, outputs, param_type)

    def update(self, x: Any) -> jax.Array:
        parameters = self.weight.value
        x, weight = self._checked(x), parameters["weight"]
        inputs, outputs = self._in_size[-1], self._out_size[-1]
        if jnp.ndim(weight) == 0:
            total = jnp.sum(x, axis=-1, keepdims=True)
            if self.include_self:
                return _biased(jnp.broadcast_to(weight * total, (*x.shape[:-1], outputs)), parameters)
            own = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, max(0, outputs - inputs))])[..., :outputs]
            return _biased(weight * (total - own), parameters)
        if not self.include_self:
            weight = weight * (1 - jnp.eye(inputs, outputs, dtype=weight.dtype))
        return _biased(x @ weight, parameters)


class OneToOne(_Linear):
    """One connection for each element: ``y = x * weight + bias``.

    Args:
      in_size: the size of an input and output.
      w_init: the weights at first, of the shape ``in_size``; or a number, for one weight that all share.
      b_init: the bias at first, of the shape ``in_size``; None for no bias.
      name: a name for messages and listings.
      param_type: the kind of State that holds the parameters.
    """

    def __init__(
        self,
        in_size: Size,
        w_init: Initial = Normal(),
        b_init: Initial = None,
        name: str | None = None,
        param_type: ParamType = ParamState,
    ) -> None:
        super().__init__(name)
        self._set_sizes(in_size, in_size)
        self._set_parameters(param(w_init, in_size, allow_none=False), b_init, in_size, param_type)

    def update(self, x: Any) -> jax.Array:
        parameters = self.weight.value
        return _biased(self._checked(x) * parameters["weight"], parameters)


class SparseLinear(_Linear):
    """A linear layer whose weights are a sparse matrix. The connections are fixed, their weights are trained.

    Args:
      spar_mat: a matrix ``(inputs, outputs)``: of ``jax.experimental.sparse`` (``BCOO``, ``BCSR``, ``COO``, ``CSR``) or
        ``scipy.sparse``, or a dense array, whose non-zero elements count.
      b_init: the bias at first, ``(outputs,)``; None for no bias.
      in_size: the size of an input, when it has more axes than the one of the matrix.
      name: a name for messages and listings.
      param_type: the kind of State that holds the parameters; ``'weight'`` holds one number for each connection.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> layer = sg.nn.SparseLinear(jnp.array([[0.0, 2.0], [3.0, 0.0]]))
    >>> layer(jnp.array([1.0, 10.0])), layer.weight.value["weight"].shape
    (Array([30.,  2.], dtype=float32), (2,))
    """

    def __init__(
        self,
        spar_mat: Any,
        b_init: Initial = None,
        in_size: Size | None = None,
        name: str | None = None,
        param_type: ParamType = ParamState,
    ) -> None:
        super().__init__(name)
        rows, columns, data, shape = _coordinates(spar_mat)
        inputs = (shape[0],) if in_size is None else np.atleast_1d(in_size).tolist()
        self._set_sizes(inputs, (*inputs[:-1], shape[1]))
        if inputs[-1] != shape[0]:
            raise ValueError(f"in_size={in_size} ends with {inputs[-1]}, but the matrix has {shape[0]} rows")
        self.rows = rows
        self.columns = columns
        self._set_parameters(data, b_init, shape[1], param_type)

    def update(self, x: Any) -> jax.Array:
        parameters = self.weight.value
        x = self._checked(x)
        products = x[..., self.rows] * parameters["weight"]
        y = jnp.zeros((*x.shape[:-1], self._out_size[-1]), products.dtype).at[..., self.columns].add(products)
        return _biased(y, parameters)


def _coordinates(matrix: Any) -> tuple[jax.Array, jax.Array, jax.Array, tuple[int, int]]:
    """(rows, columns, elements, shape) of a sparse or dense matrix."""
    shape = tuple(np.shape(matrix) if not hasattr(matrix, "shape") else matrix.shape)
    if len(shape) != 2:
        raise ValueError(f"SparseLinear needs a matrix, not something of the shape {shape}")
    if hasattr(matrix, "to_bcoo"):
        matrix = matrix.to_bcoo()
    if hasattr(matrix, "indices") and getattr(matrix.indices, "ndim", 0) == 2:
        return matrix.indices[:, 0], matrix.indices[:, 1], matrix.data, shape
    if hasattr(matrix, "row") and hasattr(matrix, "col") and hasattr(matrix, "data"):
        return jnp.asarray(matrix.row), jnp.asarray(matrix.col), jnp.asarray(matrix.data), shape
    if hasattr(matrix, "tocoo"):
        return _coordinates(matrix.tocoo())
    if hasattr(matrix, "todense"):
        matrix = matrix.todense()
    dense = np.asarray(matrix)
    rows, columns = np.nonzero(dense)
    return jnp.asarray(rows), jnp.asarray(columns), jnp.asarray(dense[rows, columns]), shape


class LoRA(Module):
    """A low-rank addition to a layer: ``y = base_module(x) + x @ lora_a @ lora_b``. Hu et al., "LoRA: low-rank
    adaptation of large language models" (2021). As there, ``lora_b`` is zero at first: the layer begins as
    ``base_module``.

    Args:
      in_features: the length of the last axis of an input.
      lora_rank: the rank of the addition.
      out_features: the length of the last axis of an output.
      base_module: the layer that is added to; None for none.
      kernel_init: ``lora_a`` at first, ``(in_features, lora_rank)``.
      param_type: the kind of State that holds the parameters, ``{'lora_a', 'lora_b'}``.
      in_size: the size of an input, when it has more axes than ``in_features``.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> base = sg.nn.Linear(4, 3)
    >>> layer = sg.nn.LoRA(4, 2, 3, base_module=base)
    >>> x = jnp.ones((5, 4))
    >>> bool((layer(x) == base(x)).all())
    True
    """

    def __init__(
        self,
        in_features: int,
        lora_rank: int,
        out_features: int,
        *,
        base_module: Callable[..., Any] | None = None,
        kernel_init: Initial = LecunNormal(),
        param_type: ParamType = ParamState,
        in_size: Size | None = None,
    ) -> None:
        super().__init__()
        inputs = (in_features,) if in_size is None else tuple(np.atleast_1d(in_size).tolist())
        self.in_size = inputs
        self.out_size = (*inputs[:-1], out_features)
        if base_module is not None and not callable(base_module):
            raise TypeError(f"base_module is a layer or function, not a {type(base_module).__name__}")
        self.base_module = base_module
        lora_a = param(kernel_init, (in_features, lora_rank), allow_none=False, allow_scalar=False)
        lora_b = jnp.zeros((lora_rank, out_features), lora_a.dtype)
        self.weight = param_type({"lora_a": lora_a, "lora_b": lora_b})

    def update(self, x: Any) -> jax.Array:
        parameters = self.weight.value
        addition = jnp.asarray(x) @ parameters["lora_a"] @ parameters["lora_b"]
        y: jax.Array = addition if self.base_module is None else self.base_module(x) + addition
        return y
