"""Saving and loading: what comes back is what was there, a resumed run is the uninterrupted one, and nothing
changes when anything is wrong.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph.errors import CheckpointError
from stategraph.saving import entries
from tests.support import ROOT

FORMATS = ["npz", "safetensors", "orbax"]
NEEDS = {"safetensors": "safetensors", "orbax": "orbax.checkpoint"}


@pytest.fixture(params=FORMATS)
def format(request: pytest.FixtureRequest) -> Any:
    """Each format whose package is installed."""
    if request.param in NEEDS:
        pytest.importorskip(NEEDS[request.param])
    return request.param


class Noisy(sg.nn.Module):
    """State of all kinds of types, and random numbers from two streams."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)
        self.layers = [
            sg.ParamState({"w": jnp.asarray(rng.normal(size=(3, 2)), jnp.float32), "b": jnp.zeros(2)})
        ]
        self.half = sg.State(jnp.asarray(rng.normal(size=5), jnp.bfloat16))
        self.small = sg.State(jnp.asarray(rng.normal(size=5), jnp.float8_e4m3fn))
        self.tiny = sg.State(jnp.asarray(rng.integers(-8, 8, 4), jnp.int4))
        self.flag = sg.State(jnp.asarray(rng.random(3) < 0.5))
        self.complex = sg.State(jnp.asarray(rng.normal(size=2) + 1j))
        self.empty = sg.State(jnp.zeros((0, 3)))
        self.own = sg.random.RandomState(seed)
        self.keys = sg.State(jax.random.split(jax.random.key(seed, impl="rbg"), 2))

    def update(self, x: Any) -> Any:
        p = self.layers[0].value
        return jnp.tanh(x @ p["w"] + p["b"] + 0.1 * self.own.randn(2)) + 0.1 * sg.random.randn(2)


def bits(obj: Any) -> dict[Any, Any]:
    """All State as bytes."""
    found = {}
    for path, state in sg.graph.states(obj).items():
        leaves = jax.tree.leaves(state.value)
        found[path] = [
            np.asarray(
                jax.random.key_data(v) if jnp.issubdtype(v.dtype, jax.dtypes.prng_key) else v
            ).tobytes()
            for v in leaves
        ]
    return found


def test_what_comes_back_is_what_was_there(tmp_path: Path, format: str) -> None:
    model, path = Noisy(1), tmp_path / "model"
    sg.random.seed(3)
    sg.save(path, model, format=format, step=7, name="run", rates=[0.1, 0.2], loss=jnp.float32(0.5))
    expected, draw = bits(model), sg.random.rand(3)
    other = Noisy(2)
    assert bits(other) != expected
    assert sg.load(path, other) == {"step": 7, "name": "run", "rates": [0.1, 0.2], "loss": 0.5}
    assert bits(other) == expected and jnp.array_equal(sg.random.rand(3), draw)
    assert jax.random.key_impl(other.keys.value) == jax.random.key_impl(model.keys.value)
    for path_, state in sg.graph.states(other).items():
        kept = sg.graph.states(model)[path_]
        assert state.dtype == kept.dtype and state.shape == kept.shape


def test_the_suffix_chooses_the_format(tmp_path: Path) -> None:
    w = sg.ParamState(jnp.arange(3.0))
    sg.save(tmp_path / "a.npz", w)
    assert (tmp_path / "a.npz").read_bytes()[:2] == b"PK" and sg.load(tmp_path / "a.npz", w) == {}
    with pytest.raises(ValueError, match="format is one of safetensors, npz, orbax"):
        sg.save(tmp_path / "a", w, format="pickle")
    safetensors = pytest.importorskip("safetensors.numpy")
    sg.save(tmp_path / "a", w, random=False)
    found = safetensors.load_file(tmp_path / "a")
    assert list(found) == ["value"] and np.array_equal(found["value"], [0, 1, 2])


def test_names_are_paths(tmp_path: Path) -> None:
    model = Noisy()
    found = entries.entries_of([model], True)
    assert {"layers.0.w", "layers.0.b", "half", "own", entries.RANDOM} <= set(found)
    pytest.importorskip("optax")
    optimizer = sg.optim.Adam(0.1).register_trainable_weights(model.states(sg.ParamState))
    names = set(entries.entries_of([model, optimizer], False))
    assert {"0.layers.0.w", "1.step", "1.lr_state", "1.state.0.0.mu.layers[0].w"} <= names
    assert not any(name.startswith("1.params") for name in names), "parameters are saved once"
    assert set(entries.entries_of([model.states(sg.ParamState)], False)) == {"layers.0.w", "layers.0.b"}


def train(model: Any, optimizer: Any, steps: int) -> list[float]:
    weights = model.states(sg.ParamState)

    @sg.compile.jit
    def step(x: Any) -> Any:
        grads, loss = sg.augment.grad(lambda: jnp.mean((model(x) - 1.0) ** 2), weights, return_value=True)()
        optimizer.update(grads)
        return loss

    return [float(step(sg.random.normal(size=(4, 3)))) for _ in range(steps)]


def make() -> tuple[Any, Any]:
    model = Noisy(5)
    rate = sg.optim.CosineAnnealingLR(0.1, 20)
    return model, sg.optim.Adam(rate, grad_clip_norm=1.0).register_trainable_weights(
        model.states(sg.ParamState)
    )


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path: Path, format: str) -> None:
    pytest.importorskip("optax")
    sg.random.seed(11)
    model, optimizer = make()
    losses = train(model, optimizer, 6)
    end = bits([model, optimizer, sg.random.DEFAULT])

    sg.random.seed(11)
    model, optimizer = make()
    first = train(model, optimizer, 3)
    sg.save(tmp_path / "run", model, optimizer, format=format, step=3)

    sg.random.seed(999)
    model, optimizer = make()
    model.layers[0].value = {"w": jnp.ones((3, 2)), "b": jnp.ones(2)}
    assert sg.load(tmp_path / "run", model, optimizer) == {"step": 3}
    assert [*first, *train(model, optimizer, 3)] == losses
    assert bits([model, optimizer, sg.random.DEFAULT]) == end


def test_the_model_alone_can_be_loaded(tmp_path: Path, format: str) -> None:
    pytest.importorskip("optax")
    model, optimizer = make()
    train(model, optimizer, 1)
    sg.save(tmp_path / "run", model, optimizer, format=format)
    other, _ = make()
    sg.random.seed(1)
    before = sg.random.get_key()
    sg.load(tmp_path / "run", other, random=False)
    assert bits(other) == bits(model) and sg.random.get_key() == before
    with pytest.raises(CheckpointError, match="holds 2 objects, and 3"):
        sg.load(tmp_path / "run", model, optimizer, model)
    assert sg.load(tmp_path / "run") == {}


def test_what_does_not_fit_is_listed_and_changes_nothing(tmp_path: Path, format: str) -> None:
    path = tmp_path / "model"
    sg.save(path, Noisy(), format=format)
    other = Noisy(1)
    other.layers[0].value = {"w": jnp.ones((3, 4)), "c": jnp.zeros(2)}  # type: ignore[assignment]
    other.half.value = jnp.ones(5)
    other.keys.value = jax.random.split(jax.random.key(0), 2)
    before = bits([other, sg.random.DEFAULT])
    with pytest.raises(CheckpointError) as error:
        sg.load(path, other)
    text = str(error.value)
    assert "layers.0.c: not in the file" in text and "layers.0.b: only in the file" in text
    assert "layers.0.w: float32[3, 2] in the file, float32[3, 4] here" in text
    assert "half: bfloat16[5] in the file, float32[5] here" in text
    assert "keys: key<rbg>[2] in the file, key<fry>[2] here" in text or "keys: key<rbg>[2]" in text
    assert bits([other, sg.random.DEFAULT]) == before


@pytest.mark.parametrize("format", ["npz", "safetensors"])
def test_damaged_and_foreign_files_are_refused(tmp_path: Path, format: str) -> None:
    pytest.importorskip(NEEDS.get(format, "numpy"))
    model, path = Noisy(), tmp_path / "model"
    sg.save(path, model, format=format)
    data = path.read_bytes()
    before = bits(model)
    spots = [0, 1, 7, 8, 9, 100, len(data) // 2, len(data) - 1]
    for cut in spots:
        path.write_bytes(data[:cut])
        with pytest.raises(CheckpointError, match=r"cut off or damaged|no checkpoint"):
            sg.load(path, model)
    flipped = 0
    for spot in range(1, len(data), max(1, len(data) // 60)):
        path.write_bytes(data[:spot] + bytes([data[spot] ^ 0x10]) + data[spot + 1 :])
        try:
            sg.load(path, model)
        except CheckpointError:
            flipped += 1
        assert bits(model) == before, "loaded the truth, or refused"
    assert flipped > 20
    for foreign in (
        b"hello world, this is no checkpoint",
        b"PK\x03\x04 nor this",
        b'\x10\0\0\0\0\0\0\0{"a": 1}        ',
    ):
        path.write_bytes(foreign)
        with pytest.raises(CheckpointError, match=r"cut off or damaged|no checkpoint"):
            sg.load(path, model)
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    with pytest.raises(CheckpointError, match="no checkpoint written by"):
        sg.load(tmp_path / "other.npz", model)
    with pytest.raises(CheckpointError, match="cannot read"):
        sg.load(tmp_path / "missing", model)
    with pytest.raises(CheckpointError, match="cannot write"):
        sg.save(tmp_path / "no such directory" / "model", model)


def test_a_directory_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("orbax.checkpoint")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="no checkpoint"):
        sg.load(tmp_path / "empty", Noisy())
    path, model = tmp_path / "run", Noisy()
    for step in (1, 2):
        sg.save(path, model, format="orbax", step=step)
    assert sg.load(path, model) == {"step": 2} and sorted(os.listdir(tmp_path)) == ["empty", "run"]
    os.rename(path, tmp_path / ".run.previous")  # as a process killed between the renames leaves it
    assert sg.load(path, model) == {"step": 2}


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    path, w = tmp_path / "w.npz", sg.State(1.0)
    sg.save(path, w, random=False)
    with np.load(path) as file:
        parts = {name: file[name] for name in file.files}
    header = json.loads(parts["stategraph"].tobytes()[8:])
    text = json.dumps({**header, "version": 2})
    parts["stategraph"] = np.frombuffer(f"{zlib.crc32(text.encode()):08x}{text}".encode(), np.uint8)
    np.savez(path, **parts)
    with pytest.raises(
        CheckpointError, match="has version 2 of the format, and this StateGraph reads version 1"
    ):
        sg.load(path, w)


def test_what_cannot_be_saved_is_said(tmp_path: Path) -> None:
    holder = sg.nn.Module()
    holder.s = sg.State({"name": "text"})  # type: ignore[attr-defined]
    with pytest.raises(CheckpointError, match=r"'s\.name' is a str, and only arrays"):
        sg.save(tmp_path / "x", holder)
    clash = {"a.b": sg.State(1.0), "a": {"b": sg.State(2.0)}}
    with pytest.raises(CheckpointError, match=r"Two arrays have the name 'a\.b'"):
        sg.save(tmp_path / "x", clash)
    with pytest.raises(TypeError, match="metadata is what JSON knows"):
        sg.save(tmp_path / "x", sg.State(1.0), model=object())
    assert not os.listdir(tmp_path)
    with pytest.raises(sg.errors.TraceError, match="called in traced code"):
        sg.compile.jit(lambda: sg.save(tmp_path / "x", sg.State(1.0)))()
    with pytest.raises(sg.errors.TraceError, match="called in traced code"):
        jax.jit(lambda: sg.load(tmp_path / "x", sg.State(1.0)))()


def test_without_safetensors_npz_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    w = sg.State(1.0)
    path = tmp_path / "w"
    if "safetensors" in sys.modules or pytest.importorskip("safetensors"):
        sg.save(path, w)
        other = tmp_path / "other"
        monkeypatch.setitem(sys.modules, "safetensors", None)
        monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        sg.save(other, w)
        assert other.read_bytes()[:2] == b"PK" and sg.load(other, w) == {}
        with pytest.raises(ImportError, match=r"pip install 'stategraph\[save\]'"):
            sg.load(path, w)
        with pytest.raises(ImportError, match="needs safetensors"):
            sg.save(tmp_path / "w.safetensors", w)


def test_a_value_that_was_lost_can_be_restored(tmp_path: Path) -> None:
    from stategraph.state import Poisoned

    w = sg.State(jnp.ones(3))
    key = sg.random.RandomState(1)
    sg.save(tmp_path / "w", [w, key])
    expected = key.value
    for state in (w, key):
        state._cells[0].v = Poisoned("a test")
    with pytest.raises(sg.errors.CallError):
        sg.save(tmp_path / "other", w)
    sg.load(tmp_path / "w", [w, key])
    assert jnp.array_equal(w.value, jnp.ones(3)) and key.value == expected


KILLED = """
import sys
import jax.numpy as jnp
import stategraph as sg
a, b = sg.State(jnp.zeros(200_000)), sg.State(0)
print("ready", flush=True)
for i in range(100_000):
    a.value, b.value = jnp.full(200_000, float(i)), i
    sg.save(sys.argv[1], [a, b], step=i, random=False)
    print(i, flush=True)
"""


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_a_killed_process_leaves_a_whole_checkpoint(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip(NEEDS.get(suffix, "numpy"))
    path = tmp_path / f"run.{suffix}"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "JAX_PLATFORMS": "cpu",
    }
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == "3":
            break
    a, b = sg.State(jnp.ones(200_000)), sg.State(1)
    time.sleep(0.013)
    process.send_signal(signal.SIGKILL)
    process.wait()
    step = sg.load(path, [a, b])["step"]
    assert step >= 3 and int(b.value) == step and jnp.array_equal(a.value, jnp.full(200_000, float(step)))


def test_sharded_arrays_come_back_where_they_were(tmp_path: Path) -> None:
    """In a process with four devices."""
    code = """
import sys, jax, jax.numpy as jnp, numpy as np, stategraph as sg
from jax.sharding import NamedSharding, PartitionSpec
mesh = jax.make_mesh((4,), ("x",))
sharding = NamedSharding(mesh, PartitionSpec("x"))
for format in sys.argv[2:]:
    w = sg.ParamState(jax.device_put(jnp.arange(8.0), sharding))
    sg.save(f"{sys.argv[1]}/{format}", w, format=format)
    w.value = jax.device_put(jnp.zeros(8), sharding)
    sg.load(f"{sys.argv[1]}/{format}", w)
    assert w.value.sharding == sharding and (w.value == jnp.arange(8.0)).all(), format
"""
    formats = ["npz"]
    for name, package in NEEDS.items():
        try:
            __import__(package)
            formats.append(name)
        except ImportError:
            pass
    flags = "--xla_force_host_platform_device_count=4"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": flags,
    }
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), *formats], capture_output=True, text=True, env=environment
    )
    assert result.returncode == 0, result.stderr[-2000:]
