"""Run by ``test_kernels.py`` in a process of its own: a program with native kernels, saved and loaded.

kernels_elsewhere.py FOLDER      (FOLDER holds the caches, and what another process left there)
"""

from __future__ import annotations

import copy
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import stategraph as sg
from stategraph import event, init, nn
from stategraph.backends.events.compact_primitive import compact

folder = Path(sys.argv[1])
jax.config.update("jax_compilation_cache_dir", str(folder / "xla"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
hits: list[str] = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name))

csr = event.CSR([0, 2, 2, 3], [0, 1, 1], (3, 2))
g = sg.ShortTermState(jnp.zeros(2))


@sg.compile.jit
def step(spikes: Any) -> Any:
    g.value = g.value * 0.5 + event.product(spikes, 2.0, csr)
    return g.value


spikes = np.array([True, False, True])
for _ in range(2):
    result = step(spikes)

file = folder / "step.sgx"
if not file.exists():
    g.value = jnp.zeros(2)
    sg.export(step, jax.ShapeDtypeStruct((3,), bool)).save(file)
loaded = sg.load_exported(file)
for _ in range(2):
    again = loaded(spikes)


class Learning(nn.Module):
    """Sends through stored, delayed and made synapses, and changes weights."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = event.FixedProb(60, 40, 0.5, init.Uniform(0.0, 0.2, seed=2), seed=0)
        self.made = event.JITConn(40, 60, 0.3, init.Normal(0.0, 1.0), seed=1)
        self.stdp = event.STDP(self.layer)
        self.v = sg.ShortTermState(jnp.linspace(0.0, 2.0, 60))

    def update(self, t: Any) -> None:
        sent = self.v.value > 1.0
        arrived = sent @ self.layer
        self.stdp(sent, arrived > 1.0)
        self.v.value = 0.5 * self.v.value + (arrived > 1.0) @ self.made + self.layer @ (arrived > 1.2)


model = folder / "model.pickle"
if not model.exists():
    model.write_bytes(pickle.dumps(nn.init_all_states(Learning())))
network = pickle.loads(model.read_bytes())
copied = copy.deepcopy(network)
for each in (network, copied):
    with sg.environ.context(dt=0.1):
        sg.compile.jit(lambda net=each: sg.compile.for_loop(net, jnp.arange(20)))()
learned = [np.asarray(net.layer.weight.value, np.float64).sum() for net in (network, copied)]

v = sg.ShortTermState(jnp.linspace(0.0, 1.9, 600))


@sg.compile.jit
def listed() -> Any:
    """A loop that stays with XLA, and lists what it sends in a kernel."""

    def one(_: Any) -> Any:
        sent = v.value >= 1
        v.value = v.value + (0.7 - v.value * sent) * 0.25
        return sent

    return compact(sg.compile.for_loop(one, jnp.arange(9)))


def sent(lists: Any) -> list[int]:
    count, places = np.split(np.asarray(lists), [1])
    return [int(number) for number in places[: count.item()]]


file = folder / "listed.sgx"
if not file.exists():
    sg.export(listed).save(file)
lists = [sent(sg.load_exported(file)()), sent(listed())]

answer = {
    "learned": learned,
    "lists": lists,
    "result": np.asarray(result).tolist(),
    "loaded": np.asarray(again).tolist(),
    "objects": sorted(path.name for path in (folder / "kernels").glob("*.o")),
    "hits": sum(name == "/jax/compilation_cache/cache_hits" for name in hits),
    "kernels": sorted(path.name for path in (folder / "kernels").glob("*.py")),
    "numba": len(list((folder / "kernels").rglob("*.nbc"))),
}
print(json.dumps(answer))
