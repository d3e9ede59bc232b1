"""Normalisation: subtract a mean, divide by a standard deviation, then scale and shift as learned.

The layers differ in the axes that the statistics are taken over. Parameters are in one State, ``weight``, a dict with
``'scale'`` and ``'bias'`` where there are any; statistics are computed in single precision at least.

In every layer ``in_size`` is the shape of one input without batch axes, which come before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from stategraph.errors import describe
from stategraph.init import Constant, Initial, ZeroInit, param
from stategraph.nn.linear import ParamType
from stategraph.nn.module import Module
from stategraph.state import BatchState, ParamState, State
from stategraph.typing import Axes, Size


def weight_standardization(w: Any, eps: float = 1e-4, gain: Any = None, out_axis: int = -1) -> jax.Array:
    """Weights with mean 0 and variance 1 / fan-in for each output. Qiao et al., "Micro-batch training with
    batch-channel normalization and weight standardization" (2019).

    Args:
      w: the weights.
      eps: the least variance, times the fan-in.
      gain: what the result is multiplied with; None for 1.
      out_axis: the axis of the outputs.
    """
    w = jnp.asarray(w)
    axes = tuple(axis for axis in range(w.ndim) if axis != out_axis % w.ndim)
    fan_in = w.size // w.shape[out_axis]
    centred = w - jnp.mean(w, axes, keepdims=True)
    scaled: jax.Array = centred * jax.lax.rsqrt(jnp.maximum(jnp.var(w, axes, keepdims=True) * fan_in, eps))
    return scaled if gain is None else scaled * gain


class _Norm(Module):
    """What the layers share: parameters, and statistics."""

    weight: State[Any] | None
    _in_size: tuple[int, ...]

    def _set_up(self, in_size: Size, feature_axes: Axes, dtype: Any) -> tuple[int, ...]:
        """The shape of the parameters: the lengths of the feature axes, and 1 for the others."""
        self.in_size = in_size
        self.out_size = self._in_size
        rank = len(self._in_size)
        self.feature_axes = tuple(axis - rank for axis in _positive(feature_axes, rank))
        self.dtype = dtype
        return tuple([n if i - rank in self.feature_axes else 1 for i, n in enumerate(self._in_size)])

    def _set_statistics(
        self,
        epsilon: float,
        axis_name: Any,
        axis_index_groups: Any,
        use_fast_variance: bool,
    ) -> None:
        self.epsilon = epsilon
        self.axis_name = axis_name
        self.axis_index_groups = axis_index_groups
        self.use_fast_variance = use_fast_variance

    def _checked(self, x: Any, rank: int | None = None) -> jax.Array:
        """The input as an array; its last axes are those of ``in_size``, or the last ``rank`` of them."""
        given: jax.Array = jnp.asarray(x)
        wanted = self._in_size if rank is None else self._in_size[len(self._in_size) - rank :]
        if given.shape[max(0, given.ndim - len(wanted)) :] != wanted:
            raise ValueError(
                describe(
                    f"{type(self).__name__} is given an input of the shape {given.shape}.",
                    why=f"its last axes have to be {wanted}, of in_size={self._in_size}",
                )
            )
        return given

    def _statistics(
        self, x: jax.Array, axes: Sequence[int], mask: Any, centre: bool = True
    ) -> tuple[jax.Array | None, jax.Array]:
        """(mean, variance) over axes, which stay with the length 1; without a centre, (None, mean square)."""
        x = x.astype(jnp.promote_types(x.dtype if self.dtype is None else self.dtype, jnp.float32))
        where = None if mask is None else jnp.broadcast_to(mask, x.shape)

        def average(values: jax.Array) -> jax.Array:
            found: jax.Array = jnp.mean(values, tuple(axes), keepdims=True, where=where)
            if self.axis_name is None:
                return found
            over: jax.Array = jax.lax.pmean(found, self.axis_name, axis_index_groups=self.axis_index_groups)
            return over

        if not centre:
            return None, average(_square(x))
        mean = average(x)
        if self.use_fast_variance:
            return mean, jnp.maximum(average(_square(x)) - _square(mean), 0)
        return mean, average(_square(x - mean))

    def _normalized(self, x: jax.Array, mean: jax.Array | None, variance: jax.Array) -> jax.Array:
        parameters = {} if self.weight is None else self.weight.value
        dtype = jnp.result_type(x, *parameters.values()) if self.dtype is None else self.dtype
        y = x if mean is None else x - mean
        y = y * jax.lax.rsqrt(variance + self.epsilon)
        if "scale" in parameters:
            y = y * parameters["scale"]
        if "bias" in parameters:
            y = y + parameters["bias"]
        return y.astype(dtype)


def _square(x: jax.Array) -> jax.Array:
    return jnp.real(x) ** 2 + jnp.imag(x) ** 2 if jnp.iscomplexobj(x) else jnp.square(x)


def _positive(axes: Axes, rank: int) -> tuple[int, ...]:
    """Axes counted from the front."""
    found = (axes,) if isinstance(axes, int) else tuple(axes)
    for axis in found:
        if not -rank <= axis < rank:
            raise ValueError(f"there is no axis {axis} in {rank} axes")
    return tuple(axis % rank for axis in found)


def _parameters(
    shape: tuple[int, ...], bias_init: Initial, scale_init: Initial, param_type: ParamType
) -> State[Any] | None:
    """The State of the parameters; None when there are none."""
    inits = {"bias": bias_init, "scale": scale_init}
    found = {name: param(how, shape, allow_scalar=False) for name, how in inits.items() if how is not None}
    return param_type(found) if found else None


class _BatchNorm(_Norm):
    """Normalisation by the statistics of the batch, per feature. Ioffe and Szegedy, "Batch normalization" (ICML 2015).

    While training (see ``Module.train``) mean and variance of the batch are used, and the running statistics follow them:
    ``running = momentum * running + (1 - momentum) * batch``, with the variance over n. Otherwise the running
    statistics are used.

    Args:
      in_size: the shape of an input without batch axes, spatial axes and features.
      feature_axis: the axis (or axes) of the features.
      track_running_stats: whether there are running statistics; without, those of the batch are always used.
      epsilon: added to the variance.
      momentum: how much of the running statistics is kept at each step.
      affine: whether to scale and shift.
      bias_initializer: the shift at first.
      scale_initializer: the scale at first.
      axis_name: an axis of ``vmap`` or a mesh to average the statistics over, too.
      axis_index_groups: groups of that axis to average over separately.
      use_fast_variance: whether the variance is computed as the mean of squares minus the square of the mean: one pass
        over the data, less exact where the mean is large.
      name: a name for messages and listings.
      dtype: the type of the output; None for that of input and parameters together.
      param_type: the kind of State that holds the parameters.
      mean_type: the kind of State that holds the running statistics.
    """

    spatial = 0

    def __init__(
        self,
        in_size: Size,
        feature_axis: Axes = -1,
        *,
        track_running_stats: bool = True,
        epsilon: float = 1e-5,
        momentum: float = 0.99,
        affine: bool = True,
        bias_initializer: Initial = Constant(0.0),
        scale_initializer: Initial = Constant(1.0),
        axis_name: Any = None,
        axis_index_groups: Any = None,
        use_fast_variance: bool = True,
        name: str | None = None,
        dtype: Any = None,
        param_type: ParamType = ParamState,
        mean_type: ParamType = BatchState,
    ) -> None:
        super().__init__(name)
        shape = self._set_up(in_size, feature_axis, dtype)
        if len(self._in_size) != self.spatial + 1:
            raise ValueError(
                describe(
                    f"{type(self).__name__} is made for in_size={self._in_size}.",
                    why=f"it takes {self.spatial} spatial axes and one of features",
                )
            )
        self._set_statistics(epsilon, axis_name, axis_index_groups, use_fast_variance)
        self.momentum = momentum
        self.track_running_stats = track_running_stats
        self.running_mean = mean_type(jnp.zeros(shape)) if track_running_stats else None
        self.running_var = mean_type(jnp.ones(shape)) if track_running_stats else None
        self.weight = _parameters(shape, bias_initializer, scale_initializer, param_type) if affine else None

    def update(self, x: Any, mask: Any = None) -> jax.Array:
        """Normalise.

        Args:
          x: an array ``(*batch, *in_size)``.
          mask: booleans that broadcast to ``x``: which elements count for the statistics; None for all.
        """
        given = self._checked(x)
        fixed = [axis + given.ndim for axis in self.feature_axes]
        axes = [axis for axis in range(given.ndim) if axis not in fixed]
        if self.running_mean is None or self.running_var is None:
            return self._normalized(given, *self._of_batch(given, axes, mask))
        if not self.is_fitting():
            return self._normalized(given, self.running_mean.value, self.running_var.value)
        mean, variance = self._of_batch(given, axes, mask)
        for running, batch in ((self.running_mean, mean), (self.running_var, variance)):
            now = running.value
            following = self.momentum * now + (1 - self.momentum) * batch.reshape(now.shape)
            running.value = following.astype(now.dtype)
        return self._normalized(given, mean, variance)

    def _of_batch(self, x: jax.Array, axes: Sequence[int], mask: Any) -> tuple[jax.Array, jax.Array]:
        if self.axis_name is None and all(x.shape[axis] == 1 for axis in axes):
            raise ValueError(
                describe(
                    f"{type(self).__name__} is trained with an input of the shape {x.shape}.",
                    why="there is one value for each feature, which has no variance",
                    fix="train with a batch of more inputs, or model.eval()",
                )
            )
        mean, variance = self._statistics(x, axes, mask)
        assert mean is not None
        return mean, variance


class BatchNorm0d(_BatchNorm):
    __doc__ = _BatchNorm.__doc__
    spatial = 0


class BatchNorm1d(_BatchNorm):
    __doc__ = _BatchNorm.__doc__
    spatial = 1


class BatchNorm2d(_BatchNorm):
    __doc__ = _BatchNorm.__doc__
    spatial = 2


class BatchNorm3d(_BatchNorm):
    __doc__ = _BatchNorm.__doc__
    spatial = 3


class LayerNorm(_Norm):
    """Normalisation of each input by itself. Ba et al., "Layer normalization" (2016).

    Args:
      in_size: the shape of an input without batch axes.
      reduction_axes: the axes that the statistics are taken over.
      feature_axes: the axes of ``in_size`` along which there are parameters.
      epsilon: added to the variance.
      use_bias: whether to shift.
      use_scale: whether to scale.
      bias_init: the shift at first.
      scale_init: the scale at first.
      axis_name: an axis of ``vmap`` or a mesh to average the statistics over, too.
      axis_index_groups: groups of that axis to average over separately.
      use_fast_variance: whether the variance is computed as the mean of squares minus the square of the mean: one pass
        over the data, less exact where the mean is large.
      dtype: the type of the output; None for that of input and parameters together.
      param_type: the kind of State that holds the parameters.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> y = sg.nn.LayerNorm(4)(jnp.arange(8.0).reshape(2, 4))
    >>> [f"{value:.3f}" for value in y[0]]
    ['-1.342', '-0.447', '0.447', '1.342']
    """

    def __init__(
        self,
        in_size: Size,
        reduction_axes: Axes = -1,
        feature_axes: Axes = -1,
        *,
        epsilon: float = 1e-6,
        use_bias: bool = True,
        use_scale: bool = True,
        bias_init: Initial = ZeroInit(),
        scale_init: Initial = Constant(1.0),
        axis_name: Any = None,
        axis_index_groups: Any = None,
        use_fast_variance: bool = True,
        dtype: Any = None,
        param_type: ParamType = ParamState,
    ) -> None:
        super().__init__()
        shape = self._set_up(in_size, feature_axes, dtype)
        self.reduction_axes = (reduction_axes,) if isinstance(reduction_axes, int) else tuple(reduction_axes)
        self._set_statistics(epsilon, axis_name, axis_index_groups, use_fast_variance)
        self.weight = _parameters(
            shape, bias_init if use_bias else None, scale_init if use_scale else None, param_type
        )

    def update(self, x: Any, *, mask: Any = None) -> jax.Array:
        """Normalise.

        Args:
          x: an array ``(*batch, *in_size)``.
          mask: booleans that broadcast to ``x``: which elements count for the statistics; None for all.
        """
        given = self._checked(x)
        axes = _positive(self.reduction_axes, given.ndim)
        return self._normalized(given, *self._statistics(given, axes, mask))


class RMSNorm(_Norm):
    """Division by the root mean square of each input, without subtracting a mean. Zhang and Sennrich, "Root mean square
    layer normalization" (NeurIPS 2019).

    Args:
      in_size: the shape of an input without batch axes.
      epsilon: added to the mean square.
      dtype: the type of the output; None for that of input and parameters together.
      use_scale: whether to scale.
      scale_init: the scale at first.
      reduction_axes: the axes that the mean is taken over.
      feature_axes: the axes of ``in_size`` along which there are parameters.
      axis_name: an axis of ``vmap`` or a mesh to average over, too.
      axis_index_groups: groups of that axis to average over separately.
      use_fast_variance: changes nothing: the mean of squares takes one pass over the data, and no mean is subtracted
        from it.
      param_type: the kind of State that holds the parameters.
    """

    def __init__(
        self,
        in_size: Size,
        *,
        epsilon: float = 1e-6,
        dtype: Any = None,
        use_scale: bool = True,
        scale_init: Initial = Constant(1.0),
        reduction_axes: Axes = -1,
        feature_axes: Axes = -1,
        axis_name: Any = None,
        axis_index_groups: Any = None,
        use_fast_variance: bool = True,
        param_type: ParamType = ParamState,
    ) -> None:
        super().__init__()
        shape = self._set_up(in_size, feature_axes, dtype)
        self.reduction_axes = (reduction_axes,) if isinstance(reduction_axes, int) else tuple(reduction_axes)
        self._set_statistics(epsilon, axis_name, axis_index_groups, use_fast_variance)
        self.weight = _parameters(shape, None, scale_init if use_scale else None, param_type)

    def update(self, x: Any, *, mask: Any = None) -> jax.Array:
        """Normalise.

        Args:
          x: an array ``(*batch, *in_size)``.
          mask: booleans that broadcast to ``x``: which elements count for the mean; None for all.
        """
        given = self._checked(x)
        axes = _positive(self.reduction_axes, given.ndim)
        return self._normalized(given, *self._statistics(given, axes, mask, centre=False))


class GroupNorm(_Norm):
    """Normalisation of each input by itself, in groups of features. Wu and He, "Group normalization" (ECCV 2018).

    Args:
      in_size: the shape of an input without batch axes: spatial axes and features. With ``(features,)`` alone the first
        axis of an input is the batch, and all others but the last are spatial.
      feature_axis: the axis of the features.
      num_groups: the number of groups; None to give ``group_size``.
      group_size: the number of features in a group.
      epsilon: added to the variance.
      dtype: the type of the output; None for that of input and parameters together.
      use_bias: whether to shift.
      use_scale: whether to scale.
      bias_init: the shift at first.
      scale_init: the scale at first.
      reduction_axes: the axes of an input that the statistics are taken over, that of the features among them, of which
        it is the groups; None for all but the batch axes.
      axis_name: an axis of ``vmap`` or a mesh to average the statistics over, too.
      axis_index_groups: groups of that axis to average over separately.
      use_fast_variance: whether the variance is computed as the mean of squares minus the square of the mean: one pass
        over the data, less exact where the mean is large.
      param_type: the kind of State that holds the parameters.
    """

    def __init__(
        self,
        in_size: Size,
        feature_axis: int = -1,
        num_groups: int | None = 32,
        group_size: int | None = None,
        *,
        epsilon: float = 1e-6,
        dtype: Any = None,
        use_bias: bool = True,
        use_scale: bool = True,
        bias_init: Initial = ZeroInit(),
        scale_init: Initial = Constant(1.0),
        reduction_axes: Axes | None = None,
        axis_name: Any = None,
        axis_index_groups: Any = None,
        use_fast_variance: bool = True,
        param_type: ParamType = ParamState,
    ) -> None:
        super().__init__()
        shape = self._set_up(in_size, feature_axis, dtype)
        self.reduction_axes = (reduction_axes,) if isinstance(reduction_axes, int) else reduction_axes
        features = self._in_size[self.feature_axes[0]]
        if (num_groups is None) == (group_size is None):
            raise ValueError(
                "GroupNorm takes num_groups or group_size; pass num_groups=None to give group_size"
            )
        groups = num_groups if num_groups is not None else features // (group_size or 1)
        if groups < 1 or features % groups or (group_size is not None and groups * group_size != features):
            what = f"{num_groups} groups" if num_groups is not None else f"groups of {group_size}"
            raise ValueError(f"{features} features cannot be split into {what}")
        self.num_groups = groups
        self.group_size = features // groups
        self._set_statistics(epsilon, axis_name, axis_index_groups, use_fast_variance)
        self.weight = _parameters(
            shape, bias_init if use_bias else None, scale_init if use_scale else None, param_type
        )

    def update(self, x: Any, *, mask: Any = None) -> jax.Array:
        """Normalise.

        Args:
          x: an array ``(*batch, *in_size)``.
          mask: booleans that broadcast to ``x``: which elements count for the statistics; None for all.
        """
        given = self._checked(x)
        feature = given.ndim + self.feature_axes[0]
        split = (self.num_groups, self.group_size)
        grouped = (*given.shape[:feature], *split, *given.shape[feature + 1 :])
        # The axis of the features becomes two, of which the statistics are taken over the second.
        axes = [axis + (axis >= feature) for axis in self._reduced(given.ndim, feature)]
        mask = None if mask is None else jnp.broadcast_to(mask, given.shape).reshape(grouped)
        mean, variance = self._statistics(given.reshape(grouped), axes, mask)
        assert mean is not None

        def each_feature(values: jax.Array) -> jax.Array:
            """One value a feature instead of one a group."""
            flat = values.reshape(*values.shape[:feature], self.num_groups, *values.shape[feature + 2 :])
            return jnp.repeat(flat, self.group_size, axis=feature)

        return self._normalized(given, each_feature(mean), each_feature(variance))

    def _reduced(self, rank: int, feature: int) -> Sequence[int]:
        """The axes of an input that the statistics are taken over."""
        if self.reduction_axes is None:
            return range(rank - len(self._in_size) if len(self._in_size) > 1 else min(1, rank - 1), rank)
        axes = _positive(self.reduction_axes, rank)
        if feature not in axes:
            raise ValueError(
                describe(
                    f"GroupNorm is told to take statistics over the axes {tuple(self.reduction_axes)}.",
                    why=f"the axis of the features, {feature} or {feature - rank}, is not among them, and groups lie along it",
                    fix=f"reduction_axes={(*self.reduction_axes, feature - rank)}",
                )
            )
        return axes
