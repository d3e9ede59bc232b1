"""The balanced networks in BrainState, with brainevent's connections and brainpy.state's neurons: one measurement.

python benchmarks/networks_brainstate.py coba 4000 SEED OUT.npz      (imports no StateGraph; see networks.py)
"""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import sys
import time
from typing import Any

import brainpy
import brainstate
import braintools
import brainunit as u
import jax.numpy as jnp
import numpy as np

bp = brainpy.state
DT = 0.1


class Balanced(brainstate.nn.Module):
    def __init__(self, kind: str, size: int) -> None:
        super().__init__()
        self.excitatory = size * 4 // 5
        coba = kind == "coba"
        normal, uniform = braintools.init.Normal, braintools.init.Uniform
        self.neurons = bp.LIFRef(
            size,
            R=(100.0 if coba else 1.0) * u.Mohm,
            tau=20.0 * u.ms,
            tau_ref=5.0 * u.ms,
            V_th=-50.0 * u.mV,
            V_reset=-60.0 * u.mV,
            V_rest=(-60.0 if coba else -49.0) * u.mV,
            V_initializer=normal(-65.0 * u.mV, 5.0 * u.mV) if coba else uniform(-60.0 * u.mV, -50.0 * u.mV),
            spk_reset="hard",
        )

        def projection(pre: int, weight: Any, tau: float, first: Any, out: Any) -> Any:
            return bp.AlignPostProj(
                comm=brainstate.nn.EventFixedProb(pre, size, 80 / size, weight),
                syn=bp.Expon.desc(size, tau=tau * u.ms, g_initializer=first),
                out=out,
                post=self.neurons,
            )

        inhibitory = size - self.excitatory
        if coba:
            excited, inhibited = normal(40.0 * u.nS, 15.0 * u.nS), normal(200.0 * u.nS, 120.0 * u.nS)
            self.e = projection(self.excitatory, 6.0 * u.nS, 5.0, excited, bp.COBA.desc(E=0.0 * u.mV))
            self.i = projection(inhibitory, 67.0 * u.nS, 10.0, inhibited, bp.COBA.desc(E=-80.0 * u.mV))
        else:
            still = braintools.init.Constant(0.0 * u.nA)
            self.e = projection(self.excitatory, 1.62 * u.nA, 5.0, still, bp.CUBA.desc(scale=1.0))
            self.i = projection(inhibitory, -9.0 * u.nA, 10.0, still, bp.CUBA.desc(scale=1.0))

    def update(self, i: Any) -> Any:
        with brainstate.environ.context(t=i * DT * u.ms):
            spikes = self.neurons.get_spike() != 0.0
            self.e(spikes[: self.excitatory])
            self.i(spikes[self.excitatory :])
            return self.neurons() != 0.0


def main(kind: str, size: int, seed: int, out: str, duration: float = 1000.0, repeats: int = 3) -> None:
    np.random.seed(seed)
    brainstate.random.seed(seed)
    brainstate.environ.set(dt=DT * u.ms)
    network = Balanced(kind, size)
    brainstate.nn.init_all_states(network)
    steps = round(duration / DT)

    @brainstate.transform.jit
    def run(numbers: Any) -> Any:
        return brainstate.transform.for_loop(network.update, numbers)

    seconds, processor = [], []
    for repeat in range(repeats + 1):  # the first compiles, and lets the network settle
        numbers = jnp.arange(steps) + repeat * steps
        start, before = time.perf_counter(), time.process_time()
        raster = run(numbers).block_until_ready()
        seconds.append(time.perf_counter() - start)
        processor.append(time.process_time() - before)
    when, who = np.nonzero(np.asarray(raster))
    medians = {"seconds": np.median(seconds[1:]), "processor": np.median(processor[1:])}
    np.savez(out, times=when * DT, ids=who, **medians)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
