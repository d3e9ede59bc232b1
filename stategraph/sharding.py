"""Where arrays lie: shardings as users give them, one per leaf.

A ``jax.sharding.Sharding`` says which device holds which part of an array. Users give one for a value, or a
prefix of its structure with several; None stands for *wherever it is best*.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding

from stategraph import _jax


def plain_mesh(mesh: Any) -> Mesh:
    """A mesh whose axes are not part of the types of arrays: the compiler decides where values lie.

    Raises ``TypeError`` for what is no mesh.
    """
    if not isinstance(mesh, Mesh):
        raise TypeError(
            f"mesh is a {type(mesh).__name__}; give a jax.sharding.Mesh (jax.make_mesh makes one)"
        )
    if all(kind == AxisType.Auto for kind in mesh.axis_types):
        return mesh
    return Mesh(mesh.devices, mesh.axis_names)


def plain(what: str, sharding: Any) -> Sharding | None:
    """A sharding over a plain mesh; raises ``TypeError`` for what is no sharding, saying what is."""
    if sharding is None:
        return None
    if isinstance(sharding, NamedSharding) and isinstance(sharding.mesh, Mesh):
        mesh = plain_mesh(sharding.mesh)
        if mesh is not sharding.mesh:
            return NamedSharding(mesh, sharding.spec, memory_kind=sharding.memory_kind)
    if not isinstance(sharding, Sharding):
        raise TypeError(
            f"{what} is {sharding!r}, a {type(sharding).__name__}; "
            "give a jax.sharding.NamedSharding(mesh, PartitionSpec(...))"
        )
    return sharding


def prefix(what: str, shardings: Any) -> Any:
    """Nested shardings with every one of them over a plain mesh."""
    return jax.tree.map(lambda s: plain(what, s), shardings, is_leaf=_is_leaf)


def per_leaf(what: str, shardings: Any, tree: Any) -> list[Sharding | None]:
    """A sharding per leaf of a structure (None: a single array), from a prefix of it."""
    structure = jax.tree.structure(0) if tree is None else tree
    try:
        found = _jax.prefix_axes(what, structure, shardings)
    except ValueError:
        raise ValueError(
            f"{what}={shardings!r} is no prefix of the structure that it is for, {structure}"
        ) from None
    return [plain(what, sharding) for sharding in found]


def placed(leaves: list[Any], tree: Any, shardings: Any) -> list[Any]:
    """Leaves of a State where its ``sharding=`` wants them; a bare ``PartitionSpec`` names no devices."""
    if isinstance(shardings, PartitionSpec):
        return leaves
    found = per_leaf("sharding", shardings, tree)
    return [
        jax.device_put(leaf, sharding) if sharding is not None and isinstance(leaf, jax.Array) else leaf
        for leaf, sharding in zip(leaves, found, strict=True)
    ]


class Portable:
    """A sharding on its way through pickle: the mesh as sizes and numbers of devices."""

    def __init__(self, sharding: NamedSharding) -> None:
        self.shape = dict(sharding.mesh.shape)
        self.devices = [device.id for device in sharding.mesh.devices.flat]
        self.spec = tuple(sharding.spec)

    def restore(self) -> Any:
        """The sharding; its spec alone where this process does not have the devices."""
        known = {device.id: device for device in jax.devices()}
        spec = PartitionSpec(*self.spec)
        if not all(number in known for number in self.devices):
            return spec
        grid = np.array([known[number] for number in self.devices]).reshape(*self.shape.values())
        return NamedSharding(Mesh(grid, tuple(self.shape)), spec)


def portable(shardings: Any) -> Any:
    """Nested shardings as ``pickle`` can take them."""
    return jax.tree.map(
        lambda s: Portable(s) if isinstance(s, NamedSharding) and isinstance(s.mesh, Mesh) else s, shardings
    )


def restored(shardings: Any) -> Any:
    """What ``portable`` was given."""
    return jax.tree.map(lambda s: s.restore() if isinstance(s, Portable) else s, shardings)


def _is_leaf(value: Any) -> bool:
    return value is None or isinstance(value, Sharding)
