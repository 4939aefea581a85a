"""Feed hostile input to everything that reads what others wrote, and say what came of it.

    python scripts/fuzz.py --seconds 20                       # every target, with hypothesis
    python scripts/fuzz.py --only reader formats --seconds 60
    python scripts/fuzz.py --engine atheris --seconds 60      # guided by coverage; pip install atheris (Python 3.11)

Every input must end in a result or in the toolkit's own error, in time, without code run, files written outside, or
the network asked. A target ends at its first failure, which is printed with its input; exit code 1. The targets are
those of tests/fuzz.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import subprocess
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from hypothesis import HealthCheck, Phase, given, seed, settings

EXAMPLES = 10**9
SLOW_LOADS = 64  # inputs of hypothesis between two looks at the clock


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--engine", choices=["hypothesis", "atheris"], default="hypothesis")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each target")
    parser.add_argument("--only", nargs="*", default=[], help="targets whose name or group begins with one of these")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--list", action="store_true", help="name the targets")
    parser.add_argument("--target", help=argparse.SUPPRESS)  # of the process of its own that atheris needs
    arguments = parser.parse_args()
    if arguments.target:
        return run_atheris(arguments.target, arguments.seconds, arguments.seed)
    from tests.fuzz.targets import TARGETS

    chosen = [
        t
        for t in TARGETS
        if not arguments.only or t.name.startswith(tuple(arguments.only)) or t.group in arguments.only
    ]
    if arguments.list:
        print("\n".join(f"{target.group}: {target.name}" for target in chosen))
        return 0
    print("| target | inputs | refused | found |\n|---|--:|--:|---|", flush=True)
    failed = 0
    for target in chosen:
        run = run_hypothesis if arguments.engine == "hypothesis" else start_atheris
        counts, failure = run(target.name, arguments.seconds, arguments.seed)
        failed += bool(failure)
        print(
            f"| {target.name} | {sum(counts.values())} | {counts['refused']} | {'FAILED' if failure else ''} |",
            flush=True,
        )
        if failure:
            print(failure, file=sys.stderr, flush=True)
    return 1 if failed else 0


def test_of(name: str, counts: Counter[str], until: float, examples: int = EXAMPLES) -> Any:
    """The property as a hypothesis test that counts how its inputs ended; past `until` it tries no more of them."""
    from tests.fuzz.harness import attempt
    from tests.fuzz.targets import BY_NAME

    target = BY_NAME[name]

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(target.inputs)
    def holds(value: Any) -> None:
        if time.monotonic() < until or counts["failed"]:
            with contextlib.redirect_stdout(io.StringIO()):
                try:
                    counts[attempt(target, value)] += 1
                except BaseException:
                    counts["failed"] += 1
                    raise

    return holds


def run_hypothesis(name: str, seconds: float, first_seed: int) -> tuple[Counter[str], str]:
    """(how the inputs ended, the failure with its input): rounds of random inputs until the time is over."""
    counts: Counter[str] = Counter()
    until = time.monotonic() + seconds
    numbers = random.Random(f"{first_seed} {name}")
    while time.monotonic() < until:
        try:
            seed(numbers.randrange(2**32))(test_of(name, counts, until, SLOW_LOADS))()
        except BaseException as error:
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            return counts, _shown(error)
    return counts, ""


def _shown(error: BaseException) -> str:
    """The innermost frames and the input."""
    frames = "".join(traceback.format_list(traceback.extract_tb(error.__traceback__)[-6:]))
    notes = "\n".join(getattr(error, "__notes__", []))
    return f"{frames}{type(error).__name__}: {str(error)[:500]}\n{notes[:2000]}"


def start_atheris(name: str, seconds: float, first_seed: int) -> tuple[Counter[str], str]:
    """The same in a process of its own, since libFuzzer ends its process."""
    command = [sys.executable, __file__, "--target", name, "--seconds", str(seconds), "--seed", str(first_seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    tail = [line for line in done.stdout.splitlines() if line.startswith("counts ")]
    counts = Counter({pair.split("=")[0]: int(pair.split("=")[1]) for pair in tail[-1].split()[1:]} if tail else {})
    return counts, "" if done.returncode == 0 and tail else (done.stdout + done.stderr)[-4000:]


def run_atheris(name: str, seconds: float, first_seed: int) -> int:
    """libFuzzer drives hypothesis' choices, and keeps the inputs that reach new lines of the toolkit."""
    import atheris

    with atheris.instrument_imports(include=["alignment", "tests.fuzz"]):
        from tests.fuzz.targets import BY_NAME

        assert name in BY_NAME
    counts: Counter[str] = Counter()
    until = time.monotonic() + seconds
    one_input = test_of(name, counts, until + 3600).hypothesis.fuzz_one_input

    def tell() -> None:
        print("counts", *(f"{key}={value}" for key, value in counts.items()), file=sys.__stdout__, flush=True)

    def feed(data: bytes) -> None:
        if time.monotonic() > until:
            tell()
            os._exit(0)
        try:
            one_input(data)
        except BaseException as error:
            print(_shown(error), file=sys.__stderr__, flush=True)
            tell()
            os._exit(1)

    atheris.Setup([sys.argv[0], f"-seed={first_seed + 1}", "-max_len=8192", "-len_control=20", "-rss_limit_mb=0"], feed)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
