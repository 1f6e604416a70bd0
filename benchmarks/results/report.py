"""The page of a large sweep: how long `orchestrate report` takes, and how large the page is.

    python benchmarks/results/report.py [--quick] [--runs 5]

A made-up sweep of 10,000 trials, 12 parameters and 50 steps, in one stage, with its results compacted. The
whole command is timed in fresh processes. "New results": one more trial has ended, of which the command reads
the records, puts its rows into the tables, reads those, measures importance and writes the page. "Nothing
new": right after that the same once more, where importance is remembered. The bars: 3 seconds and 5 MB.

Prints a table and, unless quick, writes report.md beside this file.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from run import METRICS, PARAMETERS, make_sweep, ours_compact

from orchestrator.config import freeze, load_sweep
from orchestrator.results.load import load_results
from orchestrator.sweep.directory import STAGE, SweepDirectory
from orchestrator.sweep.facts import read_facts, read_plan
from orchestrator.sweep.files import write_atomic
from orchestrator.sweep.index import write_index

MOST_SECONDS, MOST_BYTES = 3.0, 5_000_000
SWEEP_FILE = """\
defaults: [sweep, _self_]
name: benchmark
dir: {folder}
metric: {{name: {metric}, mode: max}}
jobs: {{_target_: orchestrator.training.supervised.train}}
space: {{{space}}}
stages: {{coarse: {{trials: {trials}, epochs: 50}}}}
"""


def large_sweep(folder: Path, trials: int, left: int) -> tuple[Path, list[bytes]]:
    """Write a sweep with its results, as a user has it, but for the last few trials.

    Returns:
        The sweep's directory, and for each trial that is left what its task appends.
    """
    sweep = folder / "benchmark"
    make_sweep(sweep, files=100, trials_in_file=trials // 100, steps=50, metrics=1)
    file = folder / "sweep.yaml"
    space = ", ".join(f'"{name}": "interval(0, 1)"' for name in PARAMETERS)
    file.write_text(SWEEP_FILE.format(folder=sweep, metric=METRICS[0], space=space, trials=trials))
    write_atomic(SweepDirectory(sweep).config, freeze(load_sweep(file)))
    last = max(SweepDirectory(sweep).phase(STAGE, "coarse").records.glob("*.jsonl"))
    lines = last.read_bytes().splitlines(keepends=True)
    each = (len(lines) - 1) // (trials // 100)
    ended = len(lines) - left * each
    last.write_bytes(b"".join(lines[:ended]))
    ours_compact(sweep)
    # What drives a sweep leaves an index of its records behind.
    directory = SweepDirectory(sweep)
    read_facts(directory, read_plan(directory))
    write_index(directory.phase(STAGE, "coarse").records)
    return sweep, [b"".join(lines[at : at + each]) for at in range(ended, len(lines), each)]


def timed(sweep: Path) -> tuple[float, float]:
    """Return the seconds that one command takes: by the clock, and of processors."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [str(Path(sys.executable).with_name("orchestrate")), "report", str(sweep)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    taken, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return taken, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the trials, nothing is written")
    parser.add_argument("--runs", type=int, default=5)
    asked = parser.parse_args()
    trials = 1000 if asked.quick else 10_000
    with tempfile.TemporaryDirectory() as folder:
        sweep, ending = large_sweep(Path(folder), trials, asked.runs + 1)
        records = max(SweepDirectory(sweep).phase(STAGE, "coarse").records.glob("*.jsonl"))
        first, again = [], []
        for lines in ending:
            with records.open("ab") as file:
                file.write(lines)
            first.append(timed(sweep))
            again.append(timed(sweep))
        assert len(load_results(sweep).trials) == trials
        size = SweepDirectory(sweep).report.stat().st_size
    # The very first run reads programs from the disk.
    medians = [statistics.median(column) for runs in (first, again) for column in zip(*runs[1:], strict=True)]
    packages = ", ".join(f"{name} {version(name)}" for name in ("plotly", "pandas", "pyarrow"))
    machine = f"{len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}, {packages}"
    text = "\n".join(
        [
            "# The page of a large sweep",
            "",
            f"Medians of {asked.runs} runs of `orchestrate report` in fresh processes; {machine}. "
            f"Load of the machine at the end: {os.getloadavg()[0]:.1f}.",
            "",
            f"| {trials:,} trials × {len(PARAMETERS)} parameters × 50 steps | measured | bar |",
            "|---|---|---|",
            f"| one more trial: seconds by the clock | {medians[0]:.2f} | {MOST_SECONDS:g} |",
            f"| one more trial: seconds of processors | {medians[1]:.2f} | |",
            f"| nothing new: seconds by the clock | {medians[2]:.2f} | {MOST_SECONDS:g} |",
            f"| nothing new: seconds of processors | {medians[3]:.2f} | |",
            f"| megabytes | {size / 1e6:.2f} | {MOST_BYTES / 1e6:g} |",
            "",
        ]
    )
    print(text)
    if not asked.quick:
        (Path(__file__).parent / "report.md").write_text(text)


if __name__ == "__main__":
    main()
