"""How long planning takes and how much memory: python benchmarks/planning/speed.py [--quick]

Every row runs in a process of its own, so that its peak memory is its own and imports are paid for in it.
Prints a table and writes results.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from orchestrator.planning.sampling.observation import Observation
from orchestrator.planning.sampling.samplers import sample
from orchestrator.schema import SAMPLERS
from orchestrator.space import Parameter, parse_space

DECLARED = {
    "lr": "tag(log, interval(1e-5, 1))",
    "weight_decay": "tag(log, interval(1e-6, 1e-1))",
    "warmup": "interval(0.0, 0.2)",
    "dropout": "interval(0.0, 0.7)",
    "momentum": "interval(0.0, 0.99)",
    "smoothing": "interval(0.0, 0.3)",
    "batch": "tag(log, int(interval(16, 1024)))",
    "layers": "int(interval(1, 8))",
    "width": "choice(32, 64, 128, 256)",
    "act": "choice(relu, gelu, tanh)",
}
TRIALS, RESULTS, LARGE = 1000, 10_000, 100_000
LEARNERS = [name for name in SAMPLERS if name not in ("sobol", "random", "grid")]


def space() -> tuple[Parameter, ...]:
    return parse_space(DECLARED, {}, "speed.py")


def history(count: int) -> list[Observation]:
    """Make results with a best region, noise and a few that diverged, at three scales."""
    made = []
    for i, setting in enumerate(sample(space(), count, "random", 5)):
        unit = {p.name: p.to_unit(setting[p.name]) for p in space() if p.kind != "choice"}
        value = -sum((unit[name] - 0.3) ** 2 for name in ("lr", "weight_decay", "dropout"))
        noisy = value + 0.05 * math.sin(997 * i)
        made.append(Observation(setting, -math.inf if i % 20 == 0 else noisy, scale=3.0 ** -(i % 3)))
    return made


def propose(sampler: str, known: int) -> Callable[[], object]:
    seen = history(known)
    return lambda: sample(space(), TRIALS, sampler, 1, seen)


def narrowing() -> Callable[[], object]:
    from orchestrator.planning.narrowing.evidence import StageResults
    from orchestrator.planning.narrowing.narrow import narrow

    stage = StageResults(name="coarse", scale=0.1, observations=tuple(history(RESULTS)))
    return lambda: narrow(space(), [stage], keep=0.25, margin=0.2, trust=None)


def large(sampler: str) -> Callable[[], object]:
    from orchestrator.sweep.directory import TrialSpec

    def plan() -> object:
        drawn = sample(space(), LARGE, sampler, 1, history(200) if sampler in LEARNERS else ())
        return [TrialSpec(trial_id=f"coarse-{i:05d}", setting_id="", params=s, seed=i)
                for i, s in enumerate(drawn)]  # fmt: skip

    return plan


def rows(quick: bool) -> dict[str, tuple[str, ...]]:
    """Return what is measured, by its words."""
    wanted = {}
    for sampler in SAMPLERS:
        for known in (0, 200, 2000) if sampler in LEARNERS else (0,):
            words = f"propose {TRIALS:,} trials, {sampler}, {known:,} results known"
            wanted[words] = ("propose", sampler, str(known))
    wanted[f"narrow from {RESULTS:,} results"] = ("narrow",)
    for sampler in ("sobol", "random", "grid") if quick else SAMPLERS:
        wanted[f"plan {LARGE:,} trials, {sampler}"] = ("large", sampler)
    return wanted


def measure(what: list[str]) -> dict[str, float]:
    """Run one row in this process: seconds of the first call, of the second, and the peak memory."""
    work = {"propose": lambda: propose(what[1], int(what[2])), "narrow": narrowing,
            "large": lambda: large(what[1])}[what[0]]()  # fmt: skip
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = []
    for _ in range(1 if what[0] == "large" else 2):
        wall, cpu = time.perf_counter(), time.process_time()
        made = work()
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
        count = len(made) if hasattr(made, "__len__") else 0
        del made
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"first": times[0][0], "again": times[-1][0], "cpu": times[-1][1], "count": count,
            "peak": peak / 1024, "grown": (peak - before) / 1024}  # fmt: skip


def machine() -> str:
    names = ("optuna", "cmaes", "scipy", "numpy", "scikit-learn", "torch")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
         if line.startswith("model name")), platform.processor(),
    )  # fmt: skip
    return (
        f"{model}, {len(os.sched_getaffinity(0))} cores, load {load} at the start; "
        f"Python {platform.python_version()}, {versions}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="leave the learners' 100,000 trials out")
    parser.add_argument("--row", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.row:
        print(json.dumps(measure(given.row)))
        return
    lines = [
        "# Speed of planning",
        "",
        f"`python benchmarks/planning/speed.py{' --quick' if given.quick else ''}`, 10 parameters.",
        machine(),
        "",
        "The first call pays for imports. Processor seconds (of the second call) count where others use the",
        "machine, too.",
        "",
        "| what | got | first call, s | second, s | processor, s | peak memory, MB | of it for this, MB |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    print("\n".join(lines), flush=True)
    for words, what in rows(given.quick).items():
        done = subprocess.run(
            [sys.executable, __file__, "--row", *what], stdout=subprocess.PIPE, text=True, check=True
        )
        got = json.loads(done.stdout)
        lines.append(
            f"| {words} | {got['count']:,} | {got['first']:.2f} | {got['again']:.2f} | {got['cpu']:.2f} | "
            f"{got['peak']:.0f} | {got['grown']:.0f} |"
        )
        print(lines[-1], flush=True)
        Path(__file__).with_name("results.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
