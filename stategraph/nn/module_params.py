"""Param: a parameter that is a module: what is stored and trained is unconstrained, and its value is
computed from that.

    .val (a State) --t.forward--> constrained value --precompute--> .value()

``reg`` says what the value costs. What is kept of computed values is in ``param_cache``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stategraph import _jax, environ
from stategraph.errors import StateTypeError, describe
from stategraph.nn import param_cache
from stategraph.nn.module import Module
from stategraph.nn.regularization import Regularization
from stategraph.nn.transforms import IdentityT, Transform
from stategraph.state import ParamState, State
from stategraph.typing import Size

LOGGER = logging.getLogger("stategraph.nn.Param")


class BoundValue:
    """``param.value``: call it for the value; shape, dtype and size can be asked without."""

    __slots__ = ("_param",)

    def __init__(self, param: Param) -> None:
        self._param = param

    def __call__(self) -> Any:
        return self._param._value()

    def _facts(self, fact: Callable[[Any], Any]) -> Any:
        return jax.tree.map(fact, self._param._value_type())

    @property
    def shape(self) -> Any:
        """The shape of the value."""
        return self._facts(lambda leaf: tuple(leaf.shape))

    @property
    def dtype(self) -> Any:
        """The dtype of the value."""
        return self._facts(lambda leaf: leaf.dtype)

    @property
    def size(self) -> int:
        """The number of elements of the value."""
        return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(self._param._value_type()))

    @property
    def ndim(self) -> int:
        """The number of axes of the value."""
        return len(self.shape)

    def __repr__(self) -> str:
        return f"<value of {type(self._param).__name__} {self.dtype}{self.shape}; call it>"


class Param(Module):
    """A parameter as a module, constrained by a transform, with a prior.

    Args:
      value: the constrained value: an array, a list of numbers, or a pytree of arrays. Integers become floats
        if it is trained.
      t: maps what is stored to the constrained value, leaf by leaf.
      reg: what the constrained value costs.
      precompute: what ``value()`` makes of the constrained value, for example a symmetric matrix. It is a
        function of the value alone: no State, no random numbers.
      fit: whether it is trained; if not, its State is a plain ``State`` that gradients leave alone.
      enable_cache_logging: whether the logger ``stategraph.nn.Param`` is told, at level ``INFO``, of every use of a kept
        value and of every time that a value to keep is computed (see ``cache``).
      name: a name for messages and listings.

    Raises:
      ValueError: for a value that is not in the range of ``t``.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> tau = sg.nn.Param(jnp.ones(3), t=sg.nn.SoftplusT(), reg=sg.nn.L2Reg(0.1))
    >>> tau.value(), tau.value.shape, round(float(tau.reg_loss()), 5)
    (Array([1., 1., 1.], dtype=float32), (3,), 0.3)
    >>> tau.val.value.round(3)  # what is trained
    Array([0.541, 0.541, 0.541], dtype=float32)
    """

    enable_cache_logging = False

    def __init__(
        self,
        value: Any,
        t: Transform = IdentityT(),  # noqa: B008 -- immutable
        reg: Regularization | None = None,
        precompute: Callable[[Any], Any] | None = None,
        fit: bool = True,
        enable_cache_logging: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        if not isinstance(t, Transform):
            raise TypeError(f"t is a transform such as stategraph.nn.SoftplusT(), not a {_kind(t)}")
        if reg is not None and not isinstance(reg, Regularization):
            raise TypeError(f"reg is a regulariser such as stategraph.nn.L2Reg(), not a {_kind(reg)}")
        if precompute is not None and not callable(precompute):
            raise TypeError(f"precompute is a function of the value, not a {_kind(precompute)}")
        self.fit = fit
        if enable_cache_logging:
            self.enable_cache_logging = True
        self.t = t
        self.reg = reg
        self.precompute = precompute
        stored = self._stored(value)
        self.val: State[Any] = ParamState(stored) if fit else State(stored)

    # ---------------------------------------------------------------------------------------------- the value

    @property
    def value(self) -> BoundValue:
        """``param.value()`` is the value; ``param.value.shape``, ``.dtype`` and ``.size`` are known without
        it.
        """
        return BoundValue(self)

    def update(self) -> Any:
        """The value."""
        return self._value()

    def _value(self) -> Any:
        cached = param_cache.CACHES.get(self) if param_cache.CACHES else None
        if cached is None:
            return self._computed(self.val.value)
        hits, misses = cached.hits, cached.misses
        value = cached.get(self.val, lambda: self._computed(self.val.value))
        if self.enable_cache_logging and (hits, misses) != (cached.hits, cached.misses):
            what = "the kept value is used" if cached.hits > hits else "a value to keep is computed"
            LOGGER.info("%s %s: %s", type(self).__name__, self.name or "without a name", what)
        return value

    def _computed(self, stored: Any) -> Any:
        value = self._constrained(stored)
        return value if self.precompute is None else self.precompute(value)

    def _constrained(self, stored: Any) -> Any:
        return stored if type(self.t) is IdentityT else jax.tree.map(self.t.forward, stored)

    def _value_type(self) -> Any:
        return self._type_of(self._computed)

    def _type_of(self, function: Callable[[Any], Any]) -> Any:
        """The type of a function of what is stored, without reading it."""
        leaves = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in self.val._peek()]
        tree = jax.tree.structure(0) if self.val._tree is None else self.val._tree
        return jax.eval_shape(function, jax.tree.unflatten(tree, leaves))

    def _stored(self, value: Any) -> Any:
        """What to store for a constrained value."""
        value = self._as_arrays(value)
        for leaf in jax.tree.leaves(value):
            _check_range(self.t, leaf)
        return value if type(self.t) is IdentityT else jax.tree.map(self.t.inverse, value)

    def _as_arrays(self, value: Any) -> Any:
        if isinstance(value, (list, tuple)) and not any(
            hasattr(leaf, "shape") for leaf in jax.tree.leaves(value)
        ):
            value = np.asarray(
                value, np.result_type(*jax.tree.leaves(value)) if jax.tree.leaves(value) else None
            )
        return jax.tree.map(self._as_array, value)

    def _as_array(self, leaf: Any) -> Any:
        array = jnp.asarray(leaf, environ.dftype() if isinstance(leaf, float) else None)
        wants_float = self.fit or type(self.t) is not IdentityT
        return array.astype(environ.dftype()) if wants_float and array.dtype.kind in "iub" else array

    def set_value(self, value: Any) -> None:
        """Give the parameter a new constrained value.

        Raises:
          ValueError: for a value that is not in the range of ``t``.
          StateTypeError: for a value of another structure or shape.
        """
        old = self._type_of(self._constrained)
        value = self._as_arrays(value)
        new = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), value)
        same = _jax.same_tree(jax.tree.structure(old), jax.tree.structure(new)) and all(
            a.shape == b.shape for a, b in zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True)
        )
        if not same:
            raise StateTypeError(
                describe(
                    f"A {type(self).__name__} is given a value of another shape: it is {_text(old)}, and the value {_text(new)}.",
                    state=self.val._describe(),
                    created=self.val.source_location,
                    at=_jax.here(),
                    fix="give a value of the same shape, or make a new Param",
                )
            )
        value = jax.tree.map(lambda leaf, kind: leaf.astype(kind.dtype), value, old)
        self.val.value = self._stored(value)

    def clip(self, min_val: Any = None, max_val: Any = None) -> None:
        """Put the constrained value between two bounds, for good.

        Args:
          min_val: the lower bound; None for none.
          max_val: the upper bound; None for none.
        """
        value = self._constrained(self.val.value)
        self.set_value(jax.tree.map(lambda leaf: jnp.clip(leaf, min_val, max_val), value))

    # --------------------------------------------------------------------------------------------- kept values

    def cache(self) -> Any:
        """Keep the value until ``clear_cache``, in eager code; gives the value. A new value of the State is
        noticed. See ``Module.param_precompute`` for a whole model.
        """
        param_cache.hold(self)
        return self._value()

    def clear_cache(self) -> None:
        """Forget the kept value."""
        param_cache.drop(self)

    @property
    def cache_stats(self) -> dict[str, Any]:
        """``valid``: whether a value is kept that is still right; ``hits`` and ``misses``: how often it was
        used, and computed, since keeping began.
        """
        cached = param_cache.CACHES.get(self) or param_cache.Cached()
        return {"valid": cached.valid_for(self.val), "hits": cached.hits, "misses": cached.misses}

    # ----------------------------------------------------------------------------------------------- its prior

    def _cost(self) -> Any:
        """What the constrained value costs: a scalar; 0.0 without ``reg``."""
        if self.reg is None:
            return 0.0
        return sum(self.reg.loss(leaf) for leaf in jax.tree.leaves(self._constrained(self.val.value)))

    def reset_to_prior(self) -> None:
        """Set the value to the most probable one of ``reg``; without one, nothing happens."""
        if self.reg is None:
            return
        mode = self.reg.reset_value()
        kinds = self._type_of(self._constrained)
        self.set_value(
            jax.tree.map(lambda kind: jnp.broadcast_to(jnp.asarray(mode, kind.dtype), kind.shape), kinds)
        )

    @staticmethod
    def init(data: Any, sizes: Size | None = None, allow_none: bool = True, **param_kwargs: Any) -> Any:
        """What a layer makes of an argument that may be a ``Param``.

        Args:
          data: a ``Param``, which is given back; a function of the shape (an initialiser); a number or array;
            or None.
          sizes: the shape that the value has to have, or that a number or array broadcasts to.
          allow_none: whether None is fine, and is given back.
          **param_kwargs: for the ``Const`` that is made of a function, number or array.

        Raises:
          ValueError: for a value of another shape, or None where it is not allowed.

        Example:

        >>> import stategraph as sg
        >>> sg.nn.Param.init(2.0, (3,)).value()
        Array([2., 2., 2.], dtype=float32)
        """
        shape = None if sizes is None else tuple(np.atleast_1d(np.asarray(sizes, int)).tolist())
        if data is None:
            if allow_none:
                return None
            raise ValueError("a parameter is needed here, and is None")
        if isinstance(data, Param):
            if shape is not None and not _broadcasts(data.value.shape, shape):
                raise ValueError(f"the Param has shape {data.value.shape}, and {shape} is needed")
            return data
        if callable(data):
            if shape is None:
                raise ValueError("an initialiser needs to know `sizes`")
            return Const(data(shape), **param_kwargs)
        array = jnp.asarray(data)
        if shape is not None:
            if not _broadcasts(array.shape, shape):
                raise ValueError(f"the value has shape {array.shape}, and {shape} is needed")
            array = jnp.broadcast_to(array, shape)
        return Const(array, **param_kwargs)


class Const(Param):
    """A value that stands where a ``Param`` can, and is not trained. Takes the arguments of ``Param``; ``fit`` may only
    be False.

    Raises:
      ValueError: for ``fit=True``.
    """

    def __init__(
        self,
        value: Any,
        t: Transform = IdentityT(),  # noqa: B008 -- immutable
        reg: Regularization | None = None,
        precompute: Callable[[Any], Any] | None = None,
        fit: bool = False,
        enable_cache_logging: bool = False,
        name: str | None = None,
    ) -> None:
        if fit:
            raise ValueError(
                describe(
                    "A Const is to be trained.",
                    why="it is a Param with fit=False",
                    fix="stategraph.nn.Param(...)",
                )
            )
        super().__init__(value, t, reg, precompute, False, enable_cache_logging, name)


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    aligned = zip(reversed(shape), reversed(to), strict=False)
    return len(shape) <= len(to) and all(a in (1, b) for a, b in aligned)


def _kind(obj: Any) -> str:
    return f"class ({obj.__name__}; make an instance of it)" if isinstance(obj, type) else type(obj).__name__


def _text(types: Any) -> str:
    texts = jax.tree.map(lambda kind: f"{kind.dtype}{list(kind.shape)}", types)
    return str(texts).replace("'", "")


def _check_range(t: Transform, value: Any) -> None:
    """Refuse a value that the transform cannot give; a traced value is not looked at."""
    if type(t) is IdentityT or isinstance(value, jax.core.Tracer):
        return
    inside = np.asarray(t.contains(value))
    if inside.all():
        return
    at_fault = np.asarray(value)[~inside].ravel() if inside.shape == np.shape(value) else np.asarray(value)
    raise ValueError(
        describe(
            f"The value is not in the range of {t!r}: {np.array2string(at_fault, threshold=4, precision=6)}.",
            at=_jax.here(),
            why="there is no unconstrained number that the transform maps to it",
            fix="give a value inside of the range, or use another transform",
        )
    )
