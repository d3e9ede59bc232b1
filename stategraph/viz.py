"""Plots of spikes and of what runs recorded, with matplotlib (extra ``viz``).

Each function draws into given axes or makes some, and returns them; the numbers are those of ``stategraph.spikes``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from stategraph import _extras, spikes
from stategraph.errors import describe

__all__ = ["isi", "raster", "rate", "traces"]


def _axes(given: Any) -> Any:
    """The axes to draw into."""
    plots = _extras.load("matplotlib.pyplot", "viz", "A plot")
    return plots.subplots()[1] if given is None else given


def raster(
    found: Any, axes: Any = None, *, dt: float | None = None, every: int = 1, above: int = 0, **style: Any
) -> Any:
    """A raster: a dot for each spike, at its time (ms) and neuron.

    Args:
      found: ``Spikes``, or an array ``(steps, neurons)``.
      axes: matplotlib's axes to draw into; None for new ones.
      dt: the length of a step of the array (ms).
      every: show every so many neurons.
      above: the row of the first neuron: to stack populations.
      **style: for ``Axes.plot``, such as ``color``.

    Returns:
      The axes.

    Example:

    >>> import numpy as np
    >>> import stategraph as sg
    >>> axes = sg.viz.raster(np.eye(5), dt=1.0)
    >>> axes.get_xlabel(), len(axes.lines)
    ('time (ms)', 1)
    """
    axes = _axes(axes)
    spiked = spikes.as_spikes(found, dt)
    times, ids = spikes.raster(spiked)
    shown = ids % every == 0
    look = {"linestyle": "none", "marker": ".", "markersize": 2, "markeredgewidth": 0, **style}
    axes.plot(times[shown], ids[shown] // every + above, **look)
    axes.set(xlabel="time (ms)", ylabel="neuron", xlim=(spiked.start, spiked.start + spiked.duration))
    return axes


def rate(
    found: Any,
    axes: Any = None,
    *,
    bin: float = 1.0,
    sigma: float | None = None,
    dt: float | None = None,
    **style: Any,
) -> Any:
    """The rate of a population over time (Hz); see ``stategraph.spikes.rate``.

    Args:
      found: ``Spikes``, or an array ``(steps, neurons)``.
      axes: matplotlib's axes to draw into; None for new ones.
      bin: the width of a bin (ms).
      sigma: the standard deviation of a Gaussian that smooths it (ms).
      dt: the length of a step of the array (ms).
      **style: for ``Axes.plot``.

    Returns:
      The axes.
    """
    axes = _axes(axes)
    axes.plot(*spikes.rate(found, bin, sigma, dt), **style)
    axes.set(xlabel="time (ms)", ylabel="rate (Hz)")
    axes.set_ylim(bottom=0)
    return axes


def isi(found: Any, axes: Any = None, *, dt: float | None = None, bins: Any = 50, **style: Any) -> Any:
    """A histogram of the intervals between the spikes of each neuron (ms).

    Args:
      found: ``Spikes``, or an array ``(steps, neurons)``.
      axes: matplotlib's axes to draw into; None for new ones.
      dt: the length of a step of the array (ms).
      bins: how many bins, or their edges (ms).
      **style: for ``Axes.hist``.

    Returns:
      The axes.
    """
    axes = _axes(axes)
    axes.hist(spikes.isi(found, dt), bins, **style)
    axes.set(xlabel="interval (ms)", ylabel="intervals")
    return axes


def traces(recording: Any, name: str, axes: Any = None, *, apart: float = 0.0, **style: Any) -> Any:
    """What a run recorded as ``name``, over time: a line for each column.

    Args:
      recording: what ``nn.run`` returned.
      name: a monitor whose rows are arrays.
      axes: matplotlib's axes to draw into; None for new ones.
      apart: how far each line is moved above the last.
      **style: for ``Axes.plot``.

    Returns:
      The axes.
    """
    axes = _axes(axes)
    values = recording[name]
    if isinstance(values, spikes.Spikes):
        raise TypeError(describe(f"{name!r} are spikes.", fix=f"stategraph.viz.raster(recording[{name!r}])"))
    columns = np.asarray(values)
    columns = columns.reshape(len(columns), math.prod(columns.shape[1:]))
    axes.plot(recording.times(name), columns + apart * np.arange(columns.shape[1]), **style)
    axes.set(xlabel="time (ms)", ylabel=name)
    return axes
