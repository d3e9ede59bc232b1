"""One of the two processes of ``test_shardings.py``: argv is the coordinator's address and a number."""

from __future__ import annotations

import sys
from typing import Any

import jax
import numpy as np

address, number = sys.argv[1], int(sys.argv[2])
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(address, num_processes=2, process_id=number, initialization_timeout=120)

import jax.numpy as jnp  # noqa: E402
from jax.sharding import Mesh, NamedSharding, PartitionSpec  # noqa: E402

import stategraph as sg  # noqa: E402

assert jax.device_count() == 8 and jax.local_device_count() == 4
mesh = Mesh(np.array(jax.devices()), ("data",))
cut, whole = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
data = np.arange(32, dtype=np.float32).reshape(16, 2) / 16


def spread(value: np.ndarray, sharding: Any) -> Any:
    return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])


w = sg.ParamState(np.ones(2, np.float32), sharding=whole)
seen = sg.LongTermState(np.zeros(16, np.float32), sharding=cut)


def step(x: Any) -> Any:
    gradient = sg.augment.grad(lambda: ((x @ w.value - x.sum(1) * 2) ** 2).mean(), w)()
    w.value = w.value - 0.1 * gradient
    seen.value = seen.value + x.sum(1)
    return jnp.sum(seen.value)


def local(x: Any) -> Any:
    w.value = w.value + jax.lax.psum(x.sum(), "data")
    seen.value = seen.value * 2
    return jax.lax.psum(x, "data")


x = spread(data, cut)
compiled = sg.compile.jit(step, in_shardings=cut, out_shardings=whole)
for _ in range(2):
    total = compiled(x)
shards = sg.compile.jit(sg.augment.shard_map(local, mesh, PartitionSpec("data"), PartitionSpec()))
shards(x)

alone = np.ones(2, np.float32)
for _ in range(2):
    alone = alone - 0.1 * 2 * (data.T @ (data @ alone - data.sum(1) * 2)) / 16
mine = np.asarray(w.value.addressable_shards[0].data)
assert np.allclose(mine, alone + data.sum(), rtol=1e-4), (mine, alone)
assert seen.value.sharding.is_equivalent_to(cut, 1)
for shard in seen.value.addressable_shards:
    assert np.allclose(shard.data, 2 * 2 * data.sum(1)[shard.index])
assert np.allclose(np.asarray(total.addressable_shards[0].data), 2 * data.sum())
print("agreed", mine.tolist())
