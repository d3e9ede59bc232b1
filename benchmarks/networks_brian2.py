"""The balanced networks in Brian 2: one measurement (imports no StateGraph; see networks.py).

python benchmarks/networks_brian2.py coba 4000 SEED OUT.npz THREADS     C++ standalone; 0 threads: Brian's runtime mode

A standalone program is built once for each network and number of threads, and run again with other seeds.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import brian2 as b2
import numpy as np

DT = 0.1


def network(kind: str, size: int) -> tuple[Any, Any]:
    b2.defaultclock.dt = DT * b2.ms
    excitatory = size * 4 // 5
    if kind == "coba":
        names = {"tau": 20 * b2.ms, "tau_e": 5 * b2.ms, "tau_i": 10 * b2.ms, "E_L": -60 * b2.mV}
        names |= {"E_e": 0 * b2.mV, "E_i": -80 * b2.mV, "w_e": 6 / 10, "w_i": 67 / 10}  # over 10 nS of leak
        slope = "dv/dt = (g_e * (E_e - v) + g_i * (E_i - v) - (v - E_L)) / tau : volt (unless refractory)"
        unit = "1"
    else:
        names = {"tau": 20 * b2.ms, "tau_e": 5 * b2.ms, "tau_i": 10 * b2.ms, "E_L": -49 * b2.mV}
        names |= {"w_e": 1.62 * b2.mV, "w_i": -9 * b2.mV}
        slope = "dv/dt = (g_e + g_i - (v - E_L)) / tau : volt (unless refractory)"
        unit = "volt"
    equations = f"""
    {slope}
    dg_e/dt = -g_e / tau_e : {unit}
    dg_i/dt = -g_i / tau_i : {unit}
    """
    neurons = b2.NeuronGroup(
        size,
        equations,
        threshold="v > -50 * mV",
        reset="v = -60 * mV",
        refractory=5 * b2.ms,
        method="exponential_euler" if kind == "coba" else "exact",
        namespace=names,
    )
    if kind == "coba":
        neurons.v = "(randn() * 5 - 65) * mV"
        neurons.g_e = "(randn() * 1.5 + 4)"
        neurons.g_i = "(randn() * 12 + 20)"
    else:
        neurons.v = "(rand() * 10 - 60) * mV"
    excite = b2.Synapses(neurons[:excitatory], neurons, on_pre="g_e += w_e", namespace=names)
    inhibit = b2.Synapses(neurons[excitatory:], neurons, on_pre="g_i += w_i", namespace=names)
    excite.connect(p=80 / size)
    inhibit.connect(p=80 / size)
    spikes = b2.SpikeMonitor(neurons)
    return b2.Network(neurons, excite, inhibit, spikes), spikes


def standalone(
    kind: str, size: int, seed: int, threads: int, seconds: float
) -> tuple[float, float, Any, Any]:
    """(seconds of the simulation loop, of the processor, times in ms, neurons)"""
    directory = Path(tempfile.gettempdir()) / f"stategraph-brian2-{kind}-{size}-{threads}"
    b2.set_device("cpp_standalone", build_on_run=False)
    b2.prefs.devices.cpp_standalone.openmp_threads = threads if threads > 1 else 0
    flags = ["-w", "-O3", "-ffast-math", "-march=native", "-std=c++11"]
    flags += ["-includechrono", "-includefstream"]
    b2.prefs.codegen.cpp.extra_compile_args_gcc = flags
    b2.seed(seed)
    net, spikes = network(kind, size)
    # Brian's own figure is the processor time of all threads
    now = "std::chrono::steady_clock::now()"
    b2.device.insert_code("main", f"const auto _began = {now};")
    taken = f"std::chrono::duration<double>({now} - _began).count()"
    net.run(seconds * b2.second)
    b2.device.insert_code("main", f'std::ofstream("wall.txt") << {taken} << std::endl;')
    b2.device.build(directory=str(directory), compile=True, run=True, debug=False, clean=False)
    processor = float((directory / "results" / "last_run_info.txt").read_text().split()[0])
    wall = float((directory / "wall.txt").read_text())
    return wall, processor, np.asarray(spikes.t / b2.ms), np.asarray(spikes.i)


def runtime(kind: str, size: int, seed: int, seconds: float) -> tuple[float, float, Any, Any]:
    b2.prefs.codegen.target = "cython"
    b2.seed(seed)
    net, spikes = network(kind, size)
    net.run(0.1 * b2.second)  # compiles
    start, before = time.perf_counter(), time.process_time()
    net.run(seconds * b2.second)
    taken, processor = time.perf_counter() - start, time.process_time() - before
    return taken, processor, np.asarray(spikes.t / b2.ms), np.asarray(spikes.i)


def main(kind: str, size: int, seed: int, out: str, threads: int, seconds: float = 1.0) -> None:
    made = standalone(kind, size, seed, threads, seconds) if threads else runtime(kind, size, seed, seconds)
    np.savez(out, seconds=made[0], processor=made[1], times=made[2], ids=made[3])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], int(sys.argv[5]))
