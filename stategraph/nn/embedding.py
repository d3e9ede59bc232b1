"""Embedding: a table with a row for each index."""

from __future__ import annotations

from typing import Any, Self

import jax
import jax.numpy as jnp

from stategraph.errors import describe
from stategraph.init import Initial, LecunUniform, param
from stategraph.nn.linear import ParamType
from stategraph.nn.module import Module
from stategraph.random.checks import as_shape
from stategraph.state import FakeState, ParamState
from stategraph.typing import Size


class Embedding(Module):
    """A table that is looked up: ``y[..., :] = weight[index]``. An index that is not in the table gives NaN.

    Args:
      num_embeddings: the number of rows.
      embedding_size: the shape of a row.
      embedding_init: the table at first, ``(num_embeddings, *embedding_size)``.
      padding_idx: a row that is zero at first and is not trained.
      max_norm: the largest norm of a row: rows that are longer are scaled down when they are looked up, in the table too.
      norm_type: the order of that norm.
      scale_grad_by_freq: whether the gradient of a row is divided by how often it is looked up in the call.
      freeze: whether the table is a constant: it is a ``FakeState`` then.
      name: a name for messages and listings.
      param_type: the kind of State that holds the table.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> table = sg.nn.Embedding(10, 4)
    >>> table(jnp.array([[1, 2, 3]])).shape
    (1, 3, 4)
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_size: Size,
        embedding_init: Initial = LecunUniform(),
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        freeze: bool = False,
        name: str | None = None,
        param_type: ParamType = ParamState,
    ) -> None:
        super().__init__(name)
        if padding_idx is not None and not 0 <= padding_idx < num_embeddings:
            raise ValueError(f"padding_idx={padding_idx} is no row of a table of {num_embeddings}")
        if max_norm is not None and not max_norm > 0:
            raise ValueError(f"max_norm is positive, not {max_norm}")
        self.num_embeddings = num_embeddings
        self.embedding_size = as_shape(embedding_size)
        self.out_size = self.embedding_size
        self.padding_idx = padding_idx
        self.max_norm = max_norm
        self.norm_type = norm_type
        self.scale_grad_by_freq = scale_grad_by_freq
        self.freeze = freeze
        table = param(
            embedding_init, (num_embeddings, *self.embedding_size), allow_none=False, allow_scalar=False
        )
        table = jnp.broadcast_to(table, (num_embeddings, *self.embedding_size))
        if padding_idx is not None:
            table = table.at[padding_idx].set(0)
        self.weight = FakeState(table) if freeze else param_type(table)

    @classmethod
    def from_pretrained(cls, embeddings: Any, freeze: bool = True, **options: Any) -> Self:
        """An embedding with a given table.

        Args:
          embeddings: the table, ``(num_embeddings, *embedding_size)``.
          freeze: whether the table is a constant.
          **options: other arguments of ``Embedding``.
        """
        table = jnp.asarray(embeddings)
        if table.ndim < 2:
            raise ValueError(f"a table of embeddings has rows, but this array has the shape {table.shape}")
        return cls(table.shape[0], table.shape[1:], table, freeze=freeze, **options)

    def update(self, indices: Any) -> jax.Array:
        index: jax.Array = jnp.asarray(indices)
        if not jnp.issubdtype(index.dtype, jnp.integer):
            raise TypeError(
                describe(
                    f"Embedding is given indices of type {index.dtype}.", fix="indices.astype(jnp.int32)"
                )
            )
        table = self.weight.value
        rows = jnp.take(table, index, axis=0)
        if self.max_norm is not None:
            short = self._shortened(rows, index, self.max_norm)
            self.weight.value = table.at[index].set(short)
            rows = rows + jax.lax.stop_gradient(short - rows)
        if self.scale_grad_by_freq:
            counts = jnp.zeros(self.num_embeddings, rows.dtype).at[index].add(1)
            fixed = jax.lax.stop_gradient(rows)
            rows = fixed + (rows - fixed) / self._along_rows(counts[index])
        if self.padding_idx is not None:
            padding = self._along_rows(index == self.padding_idx)
            rows = jnp.where(padding, jax.lax.stop_gradient(rows), rows)
        return rows

    def _along_rows(self, values: jax.Array) -> jax.Array:
        """One value for each looked-up row, so that it broadcasts to rows."""
        return values.reshape(values.shape + (1,) * len(self.embedding_size))

    def _shortened(self, rows: jax.Array, index: jax.Array, limit: float) -> jax.Array:
        rows = jax.lax.stop_gradient(rows)
        flat = rows.reshape(*index.shape, -1)
        norms = self._along_rows(jnp.linalg.norm(flat, ord=self.norm_type, axis=-1))
        return jnp.where(norms > limit, rows * (limit / jnp.maximum(norms, limit)), rows)
