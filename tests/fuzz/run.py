"""Look for programs that do not mean the same in every way of running them.

    python tests/fuzz/run.py --seconds 60 --seed 1

Restarts itself in a process whose compiled code is comparable bit for bit. A failure is reduced and written
to ``--output`` as a test file
and as the traced program (``.sg``). Exit code 1 if anything failed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LONGEST = 60.0
"""How many seconds one reduced program may take."""
TEST = """

def test_every_way_of_running_agrees():
    from pathlib import Path

    from tests.fuzz.harness import check

    assert check(Path(__file__).read_text(), {seed}{only}) is None
"""


def main() -> int:
    arguments = _arguments()
    sys.path.insert(0, str(ROOT))
    from tests.compiling import share_contexts
    from tests.support import NO_CONTRACTION, contraction_free

    if (
        not arguments.as_is
        and NO_CONTRACTION not in os.environ.get("XLA_FLAGS", "")
        and not contraction_free()
    ):
        flags = f"{os.environ.get('XLA_FLAGS', '')} {NO_CONTRACTION}".strip()
        environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
        os.execve(sys.executable, [sys.executable, *sys.argv, "--as-is"], environment)
    share_contexts()
    failures, counts = fuzz(
        arguments.seed,
        arguments.seconds,
        arguments.count,
        Path(arguments.output),
        arguments.reduce,
    )
    summary = ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
    print(f"fuzz: seed {arguments.seed}, {summary}; bits comparable: {contraction_free()}")
    return 1 if failures else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long")
    parser.add_argument("--seed", type=int, default=None, help="the first seed; a fresh one by default")
    parser.add_argument("--count", type=int, default=10**9, help="how many programs at most")
    parser.add_argument(
        "--reduce", type=float, default=60.0, help="how many seconds to spend on making a failure small"
    )
    parser.add_argument(
        "--output", default=str(ROOT / "tests" / "fuzz" / "found"), help="where failures are written"
    )
    parser.add_argument("--as-is", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.seed is None:
        arguments.seed = int.from_bytes(os.urandom(4), "little") % 10**8
        sys.argv += ["--seed", str(arguments.seed)]
    return arguments


def fuzz(
    seed: int, seconds: float, count: int, output: Path, reduce_seconds: float
) -> tuple[list[str], Counter[str]]:
    """Check programs from consecutive seeds: (messages of the failures, counts)."""
    from tests.fuzz.generator import generate
    from tests.fuzz.harness import Invalid, check

    deadline = time.monotonic() + seconds
    counts: Counter[str] = Counter()
    failures = []
    known: set[tuple[str, str]] = set()
    for number in range(seed, seed + count):
        if time.monotonic() > deadline and counts:
            break
        source = generate(number)
        try:
            failure = check(source, number)
        except Invalid as error:
            counts["invalid programs"] += 1
            print(f"seed {number}: invalid program: {str(error)[:200]}", file=sys.stderr)
            continue
        counts["programs"] += 1
        if failure is None:
            continue
        counts["failures"] += 1
        print(f"seed {number}: {failure}", flush=True)
        failures.append(f"seed {number}: {failure}")
        if failure.key not in known:
            known.add(failure.key)
            print(f"  written to {write(source, number, failure, output, reduce_seconds)}", flush=True)
    return failures, counts


@contextlib.contextmanager
def ended_after(seconds: float) -> Iterator[None]:
    """Raise ``TimeoutError`` in what takes longer: a reduced program may be a loop that never ends."""

    def end(*_: object) -> None:
        raise TimeoutError(f"took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def write(source: str, seed: int, failure: object, output: Path, seconds: float) -> Path:
    """Reduce a failing program and write it as a test, with its traced program."""
    from tests.fuzz.harness import Failure, check
    from tests.fuzz.reduce import reduce

    assert isinstance(failure, Failure)

    def run(candidate: str) -> Failure | None:
        compiled = failure.stage == "compiled"
        try:
            with ended_after(LONGEST):
                return check(candidate, seed, pipelines=0, compiled=compiled, only=failure.pipeline)
        except Exception:  # a reduced program may be wrong in any way
            return None

    def still_fails(candidate: str) -> bool:
        found = run(candidate)
        return found is not None and found.key == failure.key

    small = reduce(source, still_fails, seconds)
    final = run(small) or failure
    output.mkdir(parents=True, exist_ok=True)
    path = output / f"test_seed_{seed}.py"
    only = f", only={failure.pipeline!r}" if failure.pipeline else ""
    path.write_text(small + TEST.format(seed=seed, only=only))
    (output / f"seed_{seed}.sg").write_text(final.program)
    (output / f"seed_{seed}.txt").write_text(f"{final}\n")
    return path


if __name__ == "__main__":
    sys.exit(main())
