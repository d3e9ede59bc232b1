"""Run by ``test_kernels.py`` in a process of its own: a program with native kernels, saved and loaded.

kernels_elsewhere.py FOLDER      (FOLDER holds the caches, and what another process left there)
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import stategraph as sg
from stategraph import event

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
answer = {
    "result": np.asarray(result).tolist(),
    "loaded": np.asarray(again).tolist(),
    "hits": sum(name == "/jax/compilation_cache/cache_hits" for name in hits),
    "kernels": sorted(path.name for path in (folder / "kernels").glob("*.py")),
    "numba": len(list((folder / "kernels").rglob("*.nbc"))),
}
print(json.dumps(answer))
