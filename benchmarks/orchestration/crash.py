"""Thousands of sweeps in which anything dies: python benchmarks/orchestration/crash.py --schedules 10000

Each schedule is a whole small sweep on the simulated cluster, driven by the real `advance` and run by the
real worker, with processes killed, stalled and failed at any of their operations (see tests/faults.py and
tests/simulated_sweeps.py). It follows from its seed alone: `--seed N --schedules 1` repeats one that failed.
Exit status 1 when anything was wrong.

With `--every NAME` it is instead one undisturbed sweep, run again and again with that one fault at each of
its operations in turn.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from simulated_faults import FAULTS, Fault
from simulated_schedules import run_calm, run_schedule
from simulated_sweeps import Ran
from simulated_templates import VARIANTS, Template, make_templates

CHUNK = 100
# One schedule in so many writes its results and its report, which takes as long as all the rest of it.
WHOLE = 200


@dataclass(kw_only=True)
class Tally:
    """What many schedules gave."""

    schedules: int = 0
    operations: int = 0
    runs: int = 0
    trials: int = 0
    happened: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[str, list[str]]] = field(default_factory=list)

    def add(self, name: str, ran: Ran) -> None:
        self.schedules += 1
        self.operations += ran.operations
        self.runs += ran.runs
        self.trials += ran.trials
        self.happened += ran.happened
        if ran.wrong:
            self.failures.append((name, ran.wrong))

    def join(self, other: Tally) -> None:
        self.schedules += other.schedules
        self.operations += other.operations
        self.runs += other.runs
        self.trials += other.trials
        self.happened += other.happened
        self.failures += other.failures


def variant(seed: int) -> str:
    """Return which sweep a seed runs."""
    return list(VARIANTS)[seed % len(VARIANTS)]


def run_seeds(seeds: range) -> Tally:
    """Run one schedule for each seed."""
    tally = Tally()
    with _templates() as templates:
        for seed in seeds:
            ran = run_schedule(templates[variant(seed)], seed, whole=seed % WHOLE == 0)
            tally.add(f"seed {seed} ({variant(seed)})", ran)
    return tally


def run_each(name: str, places: range) -> Tally:
    """Run one undisturbed sweep for each operation at which the fault is to come."""
    tally = Tally()
    with _templates() as templates:
        for at in places:
            ran = run_calm(templates["plain"], 1, [Fault(at, name)])
            tally.add(f"{name} at operation {at}", ran)
    return tally


class _templates:
    """The planned sweeps of a process, in a folder of their own."""

    def __enter__(self) -> dict[str, Template]:
        self._folder = tempfile.TemporaryDirectory()
        return make_templates(Path(self._folder.name))

    def __exit__(self, *problem: object) -> None:
        self._folder.cleanup()


def chunks(numbers: range) -> Iterator[range]:
    for start in range(0, len(numbers), CHUNK):
        yield numbers[start : start + CHUNK]


def report(tally: Tally, seconds: float) -> None:
    """Print what happened, by what befell whom."""
    print(f"\n{'what happened':<58}{'times':>9}")
    for name, count in sorted(tally.happened.items(), key=lambda item: -item[1]):
        print(f"{name:<58}{count:>9,}")
    print(f"\n{tally.happened.total():,} things happened at {tally.operations:,} operations")
    print(f"{tally.trials:,} trials were planned and {tally.runs:,} runs of trials begun")
    print(f"{tally.schedules:,} schedules in {seconds:.0f} s: {tally.schedules / seconds:.1f} a second")
    print(f"{len(tally.failures)} went wrong")
    for name, wrong in tally.failures[:20]:
        print(f"\n{name}: {len(wrong)} things are wrong, the first of them:\n{wrong[0]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--schedules", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first schedule")
    parser.add_argument("--jobs", type=int, default=1, help="processes that run them")
    parser.add_argument(
        "--every", choices=sorted(FAULTS), help="this fault at each operation in turn instead"
    )
    arguments = parser.parse_args()
    began, tally = time.monotonic(), Tally()
    if arguments.every:
        with _templates() as templates:
            operations = run_calm(templates["plain"], 1).operations
        work, numbers = partial(run_each, arguments.every), range(operations)
    else:
        work, numbers = run_seeds, range(arguments.seed, arguments.seed + arguments.schedules)
    # Processes are fresh now and then, so that nothing piles up over ten thousand sweeps.
    with multiprocessing.get_context("spawn").Pool(arguments.jobs, maxtasksperchild=10) as pool:
        for part in pool.imap(work, chunks(numbers)):
            tally.join(part)
            seconds = time.monotonic() - began
            print(f"{tally.schedules:,} done, {len(tally.failures)} wrong, {seconds:.0f} s", flush=True)
    report(tally, time.monotonic() - began)
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
