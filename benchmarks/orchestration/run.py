"""Orchestration side by side: 200 trials of a trivial function, 8 at a time, on the SLURM of this machine.

    python benchmarks/orchestration/run.py --others VENV/bin/python [--repeats 3] [--only ours submitit]

`ours` runs in the Python that runs this script, the other tools in one that has requirements.txt. The order
changes from round to round, and the medians count. Then each is killed with SIGKILL half way (trials last
longer then, so that there is a half way) and started again as its documentation says. Writes results.json and
results.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CONTENDERS = HERE / "contenders"
# What a trial lasts where the tool is killed half way.
KILL_PAUSE = 0.4
PATIENCE = 900.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """What all tools are to do, and with which Pythons."""

    trials: int
    at_once: int
    ours: str
    others: str


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool: how its work is started in a folder, and how many results it has in the end.

    `start` gives the command lines, run side by side; `results` asks the tool itself; `restart` goes on after
    a kill -9, as documented; `killed` says how many of the processes are killed.
    """

    name: str
    start: Callable[[Setup, Path, float], list[list[str]]]
    results: Callable[[Setup, Path], int]
    restart: Callable[[Setup, Path, float], list[list[str]]]
    isolated: str = "a process for each trial"
    durable: bool = True


# The tools.


def start_ours(setup: Setup, folder: Path, pause: float) -> list[list[str]]:
    shutil.copy(CONTENDERS / "ours.yaml", folder / "sweep.yaml")
    shutil.copy(CONTENDERS / "my_train.py", folder)
    overrides = [
        f"stages.only.trials={setup.trials}",
        f"slurm.tasks_at_once={setup.at_once}",
        f"jobs.config.log={folder / 'executions.log'}",
        f"jobs.config.pause={pause}",
    ]
    return [[setup.ours, "-m", "orchestrator.cli", "run", "sweep.yaml", *overrides]]


def start_ours_one_task(setup: Setup, folder: Path, pause: float) -> list[list[str]]:
    """Return the command for the same trials side by side in one task, with a core for each."""
    overrides = [
        "slurm.tasks_at_once=1",
        f"slurm.trials_at_once={setup.at_once}",
        f"slurm.cpus_per_task={setup.at_once}",
        f"slurm.mem_gb={0.5 * setup.at_once}",
    ]
    (command,) = start_ours(setup, folder, pause)
    return [[*(word for word in command if not word.startswith("slurm.")), *overrides]]


def restart_ours(setup: Setup, folder: Path, pause: float) -> list[list[str]]:
    return [[setup.ours, "-m", "orchestrator.cli", "run", "sweeps/bench"]]


def results_of_ours(setup: Setup, folder: Path) -> int:
    shown = subprocess.run(
        [setup.ours, "-m", "orchestrator.cli", "status", "sweeps/bench", "--json"],
        cwd=folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return sum(phase["completed"] for phase in json.loads(shown.stdout)["phases"])


def start_submitit(setup: Setup, folder: Path, pause: float) -> list[list[str]]:
    shutil.copy(CONTENDERS / "my_train.py", folder)
    shutil.copy(CONTENDERS / "submitit_array.py", folder)
    log = str(folder / "executions.log")
    return [[setup.others, "submitit_array.py", str(setup.trials), str(setup.at_once), log, str(pause)]]


def results_of_submitit(setup: Setup, folder: Path) -> int:
    return int(json.loads((folder / "output.txt").read_text().splitlines()[-1])["results"])


def start_hydra(setup: Setup, folder: Path, pause: float) -> list[list[str]]:
    for name in ("my_train.py", "hydra_app.py", "hydra_app.yaml"):
        shutil.copy(CONTENDERS / name, folder)
    every = ",".join(map(str, range(setup.trials)))
    return [[
        setup.others, "hydra_app.py", "--multirun", f"trial={every}", f"trials={setup.trials}",
        f"log={folder / 'executions.log'}", f"pause={pause}",
        f"hydra.launcher.array_parallelism={setup.at_once}",
    ]]  # fmt: skip


def results_of_hydra(setup: Setup, folder: Path) -> int:
    """Count the results of the last multirun: its launcher raises unless it has all of them."""
    return setup.trials


def start_optuna(setup: Setup, folder: Path, pause: float) -> list[list[str]]:
    for name in ("my_train.py", "optuna_worker.py", "optuna_states.py"):
        shutil.copy(CONTENDERS / name, folder)
    return restart_optuna(setup, folder, pause) * setup.at_once


def restart_optuna(setup: Setup, folder: Path, pause: float) -> list[list[str]]:
    log = str(folder / "executions.log")
    return [[setup.others, "optuna_worker.py", str(setup.trials), log, str(pause)]]


def results_of_optuna(setup: Setup, folder: Path) -> int:
    """Count the completed trials, less those that were asked for in place of the ones that never end."""
    shown = subprocess.run(
        [setup.others, "optuna_states.py"], cwd=folder, capture_output=True, text=True, check=True
    )
    states = json.loads(shown.stdout)
    return min(setup.trials, states.get("COMPLETE", 0)) - states.get("RUNNING", 0)


def start_floor(setup: Setup, folder: Path, pause: float) -> list[list[str]]:
    array = f"--array=0-{setup.trials - 1}%{setup.at_once}"
    return [["sbatch", "--wait", "--mem=50M", "--output=/dev/null", array, "--wrap=true"]]


def results_of_floor(setup: Setup, folder: Path) -> int:
    return setup.trials


TOOLS = (
    Tool("ours", start_ours, results_of_ours, restart_ours),
    Tool("ours, one task", start_ours_one_task, results_of_ours, restart_ours),
    Tool("submitit", start_submitit, results_of_submitit, start_submitit, "a SLURM task for each trial"),
    Tool("hydra", start_hydra, results_of_hydra, start_hydra, "a SLURM task for each trial"),
    Tool("optuna", start_optuna, results_of_optuna, restart_optuna, "none"),
    Tool("floor", start_floor, results_of_floor, start_floor, "a SLURM task for each trial", durable=False),
)  # fmt: skip


# Measuring.


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One undisturbed run.

    `cpu` is of the tool's own processes, outside of SLURM's jobs; `load` the machine's, of the minute before.
    """

    wall: float
    cpu: float
    files: int
    results: int
    executions: int
    load: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Killed:
    """A run that was killed half way and started again. `lost` of the trials have no result in the end."""

    lost: int
    # executions beyond each trial's first, and how many more ran at all than were asked for
    repeated: int
    executions: int
    files: int


def launch(commands: Sequence[Sequence[str]], folder: Path) -> list[subprocess.Popen[bytes]]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    output = open(folder / "output.txt", "ab")  # noqa: SIM115 (the processes hold it)
    return [
        subprocess.Popen(
            command, cwd=folder, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            env=environment, start_new_session=True,
        )
        for command in commands
    ]  # fmt: skip


def finish(processes: Sequence[subprocess.Popen[bytes]], folder: Path) -> float:
    """Wait for processes; returns the CPU seconds of them and of what they started and waited for."""
    cpu = 0.0
    for process in processes:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        cpu += used.ru_utime + used.ru_stime
        if process.returncode != 0:
            raise SystemExit(f"{process.args}: {process.returncode}\n{(folder / 'output.txt').read_text()}")
    return cpu


def executions(folder: Path) -> list[str]:
    log = folder / "executions.log"
    return log.read_text().split() if log.exists() else []


def files_left(folder: Path, tool: Tool) -> int:
    """Count what the tool left: neither the user's own files nor what this benchmark wrote."""
    own = {"executions.log", "output.txt", "sweep.yaml", "hydra_app.yaml"}
    kept = [f for f in folder.rglob("*") if f.is_file() and "__pycache__" not in f.parts]
    return sum(not (f.parent == folder and (f.name in own or f.suffix == ".py")) for f in kept)


def undisturbed(tool: Tool, setup: Setup, folder: Path) -> Run:
    load, began = os.getloadavg()[0], time.monotonic()
    cpu = finish(launch(tool.start(setup, folder, 0.0), folder), folder)
    wall = time.monotonic() - began
    return Run(
        wall=wall, cpu=cpu, files=files_left(folder, tool), results=tool.results(setup, folder),
        executions=len(executions(folder)) if tool.durable else setup.trials, load=load,
    )  # fmt: skip


def killed(tool: Tool, setup: Setup, folder: Path) -> Killed:
    """Kill the tool's (first) process half way, and start it again while what it left behind goes on."""
    processes = launch(tool.start(setup, folder, KILL_PAUSE), folder)
    deadline = time.monotonic() + PATIENCE
    while len(executions(folder)) < setup.trials // 2:
        if time.monotonic() > deadline or processes[0].poll() is not None:
            raise SystemExit(f"{tool.name}: no half way\n{(folder / 'output.txt').read_text()}")
        time.sleep(0.02)
    # The process alone, as the kernel's out-of-memory killer does it.
    os.kill(processes[0].pid, signal.SIGKILL)
    processes[0].wait()
    finish([*processes[1:], *launch(tool.restart(setup, folder, KILL_PAUSE), folder)], folder)
    wait_for_slurm()
    done = Counter(executions(folder))
    # A tool that numbers its trials anew runs more of them, which is no different.
    return Killed(
        lost=setup.trials - tool.results(setup, folder),
        repeated=sum(done.values()) - setup.trials,
        executions=sum(done.values()),
        files=files_left(folder, tool),
    )


def wait_for_slurm(seconds: float = PATIENCE) -> None:
    """Wait until this user has nothing in SLURM's queue that a contender left there."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        names = subprocess.run(
            ["squeue", "--me", "--noheader", "--format=%j"], capture_output=True, text=True, check=True
        ).stdout.split()
        # Others' jobs on a shared machine are none of our business.
        if not any(name.startswith(("bench-", "score", "hydra_app", "wrap")) for name in names):
            return
        time.sleep(0.5)
    raise SystemExit("SLURM's queue does not get empty")


# Telling.


def machine(setup: Setup, loads: Sequence[float]) -> dict[str, str]:
    """Say what it was measured on."""

    def said(*command: str) -> str:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()

    ask = "import importlib.metadata as m,sys;print(*[f'{n} {m.version(n)}' for n in sys.argv[1:]],sep=', ')"
    told = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in told if line.startswith("model name")]
    processor = names[0] if names else platform.processor()
    return {
        "processor": f"{processor}, {len(os.sched_getaffinity(0))} cores",
        "load before each run": f"{min(loads):.1f} to {max(loads):.1f}",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "slurm": said("sinfo", "--version"),
        "others": said(
            setup.others, "-c", ask, "submitit", "hydra-core", "hydra-submitit-launcher", "optuna"
        ),
        "date": time.strftime("%Y-%m-%d"),
    }


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def table(runs: dict[str, list[Run]], kills: dict[str, Killed]) -> str:
    """Return the Markdown table, walls as ratio to ours too."""
    ours = median([run.wall for run in next(iter(runs.values()))])
    head = [
        "tool", "wall s", "of ours", "controller CPU s", "files", "isolation",
        "lost after kill -9", "executions too many",
    ]  # fmt: skip
    lines = [head, ["---"] * len(head)]
    for tool in TOOLS:
        if not (done := runs.get(tool.name)):
            continue
        wall, kill = median([run.wall for run in done]), kills.get(tool.name)
        spread = f"{min(run.wall for run in done):.1f} to {max(run.wall for run in done):.1f}"
        lines.append([
            tool.name, f"{wall:.1f} ({spread})", f"{wall / ours:.2f}", f"{median([r.cpu for r in done]):.1f}",
            f"{median([r.files for r in done]):.0f}", tool.isolated,
            str(kill.lost) if kill else "", str(kill.repeated) if kill else "",
        ])  # fmt: skip
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--others", required=True, help="a Python with requirements.txt")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--only", nargs="+", choices=[tool.name for tool in TOOLS])
    parser.add_argument("--no-kill", action="store_true")
    parser.add_argument("--keep", action="store_true", help="keep the folders that the tools worked in")
    parser.add_argument("--output", type=Path, default=HERE / "results")
    chosen = parser.parse_args()
    setup = Setup(trials=chosen.trials, at_once=chosen.at_once, ours=sys.executable, others=chosen.others)
    tools = [tool for tool in TOOLS if not chosen.only or tool.name in chosen.only]
    place = Path(tempfile.mkdtemp(prefix="orchestration-"))
    runs: dict[str, list[Run]] = {tool.name: [] for tool in tools}
    kills: dict[str, Killed] = {}

    def within(tool: Tool, do: Callable[[Tool, Setup, Path], Any], name: str) -> Any:
        folder = place / f"{tool.name.replace(', ', '-').replace(' ', '-')}-{name}"
        folder.mkdir()
        wait_for_slurm()
        found = do(tool, setup, folder)
        print(f"{tool.name}: {found}", file=sys.stderr)
        if not chosen.keep:
            shutil.rmtree(folder)
        return found

    for number in range(chosen.repeats):
        order = list(tools)
        random.Random(number).shuffle(order)
        for tool in order:
            runs[tool.name].append(within(tool, undisturbed, f"run-{number}"))
    if not chosen.no_kill:
        for tool in tools:
            if tool.durable:
                kills[tool.name] = within(tool, killed, "killed")
    shown = table(runs, kills)
    about = machine(setup, [run.load for done in runs.values() for run in done])
    content = {
        "machine": about,
        "setup": {"trials": setup.trials, "at_once": setup.at_once, "repeats": chosen.repeats},
        "runs": {name: [asdict(run) for run in done] for name, done in runs.items()},
        "killed": {name: asdict(kill) for name, kill in kills.items()},
    }
    chosen.output.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n")
    words = "".join(f"- {key}: {value}\n" for key, value in about.items())
    chosen.output.with_suffix(".md").write_text(f"{shown}\n{words}")
    print(shown)


if __name__ == "__main__":
    main()
