"""Results at scale: compacting records and loading the table, side by side with the alternatives.

    python benchmarks/results/run.py [--quick] [--runs 3]

Three comparisons, each a ratio of medians of interleaved runs in fresh processes on this machine:

- compacting 1,000 record files with a million metric rows, against pyarrow reading the same JSON lines and
  writing the same two tables;
- the same again when one file has grown since, against the first time;
- loading 10,000 trials of 12 parameters and 50 steps, against Optuna's `trials_dataframe` from SQLite and
  from its journal, loading the study included. `load_results` makes a frame of the trials at once and one of
  all 500,000 reported steps when it is asked for, so it is timed without and with that; Optuna's frame has no
  steps, though its study holds them: a frame of them is made from the study as it is. Timed twice: when
  everything is imported, and as a whole process, with its start and imports.

The study is the same in both of Optuna's storages, which is checked. Into SQLite it is written in bulk, since
`add_trials` takes four minutes.

Prints a table with the machine's load and, unless quick, writes results.md beside this file.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from orchestrator.planning.plan import Cost, Phase, Plan, Scale, plan_to_json
from orchestrator.sweep.directory import STAGE, SweepDirectory, TrialSpec, write_trials
from orchestrator.sweep.files import write_json
from orchestrator.sweep.records import encode

METRICS = ("val/accuracy", "val/loss", "train/accuracy", "train/loss")
PARAMETERS = [f"p{number:02d}" for number in range(12)]


def make_sweep(path: Path, files: int, trials_in_file: int, steps: int, metrics: int) -> None:
    """Write a sweep's directory with one stage whose records are complete."""
    directory = SweepDirectory(path)
    count = files * trials_in_file
    phase = Phase(kind=STAGE, name="coarse", trials=count, scale=Scale(epochs=steps), samples=1000)
    plan = Plan(
        uid="benchmark", name="benchmark", metric=METRICS[0], mode="max", created=0.0, folder=str(path),
        unit="core", phases=(phase,), total=Cost(), full_scale_share=None,
    )  # fmt: skip
    rng = random.Random(1)
    folder = directory.phase(STAGE, "coarse")
    folder.records.mkdir(parents=True)
    specs = []
    for number in range(files):
        lines = [encode({"kind": "task", "version": 1, "token": "t", "submission": 1, "task": number,
                         "attempt": 0, "host": "n1", "gpus": 1, "cpus": 1, "time": 0.0})]  # fmt: skip
        for place in range(trials_in_file):
            trial = f"coarse-{number * trials_in_file + place:05d}"
            params = {name: rng.random() for name in PARAMETERS}
            specs.append(TrialSpec(trial_id=trial, setting_id=f"s{trial}", params=params, seed=place))
            lines.append(encode({"kind": "start", "trial": trial, "time": 1.0}))
            for step in range(1, steps + 1):
                values = {name: rng.random() for name in METRICS[:metrics]}
                line = {"kind": "report", "trial": trial, "step": step, "metrics": values, "time": 1.0 + step}
                lines.append(encode(line))
            lines.append(encode({"kind": "outcome", "trial": trial, "state": "completed", "metrics": values,
                                 "seconds": 5.0, "error": "", "time": 9.0}))  # fmt: skip
        (folder.records / f"0001-{number:04d}-0.jsonl").write_text("".join(lines))
    write_trials(folder.trials, specs)
    ranges = {
        name: {"kind": "float", "low": 0.0, "high": 1.0, "log": False, "reason": "declared"}
        for name in PARAMETERS
    }
    write_json(folder.space, {"stage": "coarse", "parameters": ranges})
    write_json(directory.plan, plan_to_json(plan))


def ours_compact(path: Path) -> None:
    from orchestrator.results.compact import compact

    compact(path)


def pyarrow_compact(path: Path) -> None:
    """Read the same JSON lines with pyarrow and write the same two tables, with nothing else done."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.json as pj
    import pyarrow.parquet as pq

    folder = path / "stages" / "coarse" / "records"
    table = pa.concat_tables(
        [pj.read_json(file) for file in sorted(folder.glob("*.jsonl"))], promote_options="permissive"
    )
    reports = table.filter(pc.equal(table["kind"], "report"))
    columns = []
    for field in reports["metrics"].combine_chunks().type:
        values = pc.struct_field(reports["metrics"], field.name)
        columns.append(
            pa.table(
                {
                    "trial_id": reports["trial"],
                    "step": reports["step"],
                    "metric": pa.repeat(field.name, len(reports)),
                    "value": values,
                    "time": reports["time"],
                }
            )
        )
    curves = pa.concat_tables(columns).sort_by(
        [(name, "ascending") for name in ("trial_id", "step", "metric")]
    )
    pq.write_table(curves, path / "pyarrow-curves.parquet")
    outcomes = table.filter(pc.equal(table["kind"], "outcome")).flatten()
    pq.write_table(outcomes, path / "pyarrow-trials.parquet")


def ours_load(path: Path) -> None:
    from orchestrator import load_results

    assert len(load_results(path).trials) == 10_000


def ours_load_all(path: Path) -> None:
    from orchestrator import load_results

    results = load_results(path)
    assert len(results.trials) == 10_000
    assert len(results.curves) == 500_000


def optuna_load(storage: str, steps: bool = False) -> None:
    import optuna
    import pandas as pd

    if storage.startswith("sqlite"):
        study = optuna.load_study(study_name="benchmark", storage=storage)
    else:
        backend = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(storage))
        study = optuna.load_study(study_name="benchmark", storage=backend)
    assert len(study.trials_dataframe()) == 10_000
    if steps:
        rows = [
            (trial.number, step, value)
            for trial in study.get_trials(deepcopy=False)
            for step, value in trial.intermediate_values.items()
        ]
        assert len(pd.DataFrame(rows, columns=["number", "step", "value"])) == 500_000


def fill_optuna(sqlite: str, journal: str, trials: int, steps: int) -> None:
    """Write the same study into both storages."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    rng = random.Random(1)
    ranges = {name: optuna.distributions.FloatDistribution(0.0, 1.0) for name in PARAMETERS}
    made = [
        optuna.trial.create_trial(
            params={name: rng.random() for name in PARAMETERS}, distributions=dict(ranges),
            value=rng.random(), intermediate_values={step: rng.random() for step in range(1, steps + 1)},
        )
        for _ in range(trials)
    ]  # fmt: skip
    backend = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(journal))
    kept = optuna.create_study(study_name="benchmark", storage=backend)
    kept.add_trials(made)
    optuna.create_study(study_name="benchmark", storage=sqlite)
    fill_sqlite(sqlite, made)
    study = optuna.load_study(study_name="benchmark", storage=sqlite)
    assert study.trials_dataframe().equals(kept.trials_dataframe())
    one, other = study.trials[-1], kept.trials[-1]
    assert one.intermediate_values == other.intermediate_values
    assert one.distributions == other.distributions


def fill_sqlite(storage: str, made: Sequence[Any]) -> None:
    """Write finished trials into Optuna's tables, as `add_trials` does one by one."""
    import optuna
    from optuna.distributions import distribution_to_json
    from optuna.storages._rdb import models
    from sqlalchemy import create_engine, insert

    finite, number = models.TrialValueModel.TrialValueType.FINITE, models.TrialIntermediateValueModel
    rows: dict[Any, list[dict[str, Any]]] = {models.TrialModel: [], models.TrialValueModel: [], number: []}
    rows[models.TrialParamModel] = []
    for place, trial in enumerate(made):
        own = {"trial_id": place + 1}
        times = {"datetime_start": trial.datetime_start, "datetime_complete": trial.datetime_complete}
        state = optuna.trial.TrialState.COMPLETE
        rows[models.TrialModel].append({**own, "number": place, "study_id": 1, "state": state, **times})
        rows[models.TrialValueModel].append(
            {**own, "objective": 0, "value": trial.value, "value_type": finite}
        )
        for name, value in trial.params.items():
            kind = distribution_to_json(trial.distributions[name])
            rows[models.TrialParamModel].append(
                {**own, "param_name": name, "param_value": value, "distribution_json": kind}
            )
        for step, value in trial.intermediate_values.items():
            rows[number].append(
                {**own, "step": step, "intermediate_value": value,
                 "intermediate_value_type": number.TrialIntermediateValueType.FINITE}
            )  # fmt: skip
    engine = create_engine(storage)
    with engine.begin() as connection:
        for model, values in rows.items():
            connection.execute(insert(model.__table__), values)
    engine.dispose()


def ours_trials(path: Path) -> None:
    """Load the trials alone, without this package."""
    import pandas as pd

    assert len(pd.read_parquet(path / "results" / "trials")) == 10_000


ACTIONS: dict[str, Callable[..., None]] = {
    "ours-compact": lambda path: ours_compact(Path(path)),
    "pyarrow-compact": lambda path: pyarrow_compact(Path(path)),
    "ours-load": lambda path: ours_load(Path(path)),
    "ours-load-all": lambda path: ours_load_all(Path(path)),
    "ours-trials": lambda path: ours_trials(Path(path)),
    "optuna-load": optuna_load,
    "optuna-load-all": partial(optuna_load, steps=True),
}


def timed(action: str, argument: str, whole: bool = False) -> float:
    """Return the seconds that an action takes in a process of its own.

    Args:
        action: one of ACTIONS.
        argument: what it is given.
        whole: of the process with its start and imports, instead of the action when all is imported.
    """
    if whole:
        code = (
            "import sys; sys.path.insert(0, sys.argv[1])\nimport run; run.ACTIONS[sys.argv[2]](sys.argv[3])"
        )
        began = time.perf_counter()
        _run(code, action, argument)
        return time.perf_counter() - began
    code = (
        "import sys,time; sys.path.insert(0, sys.argv[1]); import run; import pandas, pyarrow.parquet,"
        " pyarrow.json, pyarrow.pandas_compat, dask, optuna, orchestrator.results.load,"
        " orchestrator.results.write\n"
        "optuna.logging.set_verbosity(optuna.logging.ERROR)\n"
        "began = time.perf_counter(); run.ACTIONS[sys.argv[2]](sys.argv[3])\n"
        "print(time.perf_counter() - began)"
    )
    return float(_run(code, action, argument).split()[-1])


def _run(code: str, *arguments: str) -> str:
    words = [sys.executable, "-W", "ignore", "-c", code, str(Path(__file__).parent), *arguments]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    return done.stdout


def interleaved(runs: int, **actions: Callable[[], float]) -> dict[str, float]:
    """Return the median of each action over interleaved runs."""
    taken: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(runs):
        for name, action in actions.items():
            taken[name].append(action())
    return {name: statistics.median(values) for name, values in taken.items()}


def compaction(folder: Path, files: int, runs: int) -> list[str]:
    sweep = folder / "sweep"
    make_sweep(sweep, files=files, trials_in_file=10, steps=25, metrics=4)

    def fresh() -> float:
        shutil.rmtree(sweep / "results", ignore_errors=True)
        return timed("ours-compact", str(sweep))

    def grown() -> float:
        with open(sweep / "stages/coarse/records" / f"0001-{files - 1:04d}-0.jsonl", "a") as file:
            file.write(encode({"kind": "start", "trial": "coarse-00000", "time": 2.0}))
        return timed("ours-compact", str(sweep))

    found = interleaved(
        runs, ours=fresh, again=lambda: timed("ours-compact", str(sweep)), grown=grown,
        pyarrow=lambda: timed("pyarrow-compact", str(sweep)),
    )  # fmt: skip
    rows = files * 10 * 25 * 4
    return [
        f"| {files:,} record files, {rows:,} metric rows | seconds | over pyarrow |",
        "|---|---|---|",
        f"| pyarrow: the same JSON read, the same tables written | {found['pyarrow']:.2f} | 1 |",
        *(
            f"| {words} | {found[key]:.2f} | {found[key] / found['pyarrow']:.2f} |"
            for key, words in (
                ("ours", "compact, everything new"),
                ("grown", "compact, one file has grown since"),
                ("again", "compact, nothing new"),
            )
        ),
    ]


def loading(folder: Path, runs: int) -> list[str]:
    sweep = folder / "loaded"
    make_sweep(sweep, files=100, trials_in_file=100, steps=50, metrics=1)
    ours_compact(sweep)
    sqlite, journal = f"sqlite:///{folder}/study.db", f"{folder}/journal.log"
    fill_optuna(sqlite, journal, 10_000, 50)
    actions = {
        "ours": ("ours-load", str(sweep)),
        "all": ("ours-load-all", str(sweep)),
        "table": ("ours-trials", str(sweep)),
        "sqlite": ("optuna-load", sqlite),
        "journal": ("optuna-load", journal),
        "journal-all": ("optuna-load-all", journal),
    }
    found, whole = (
        interleaved(runs, **{name: partial(timed, *words, whole) for name, words in actions.items()})
        for whole in (False, True)
    )

    def times(name: str) -> str:
        return f"{found[name] / found['all']:.0f}"

    return [
        "| 10,000 trials × 12 parameters × 50 steps as a table "
        "| seconds | over ours | with start and imports | over ours |",
        "|---|---|---|---|---|",
        *(
            f"| {words} | {found[key]:.3f} | {found[key] / found['ours']:.1f} "
            f"| {whole[key]:.2f} | {whole[key] / whole['ours']:.1f} |"
            for key, words in (
                ("ours", "load_results: the trials; the curves when they are asked for"),
                ("all", "load_results, and the curves of all steps"),
                ("table", "the trials alone, by pandas.read_parquet"),
                ("sqlite", "Optuna, SQLite: load_study, trials_dataframe"),
                ("journal", "Optuna, journal file: the same"),
                ("journal-all", "Optuna, journal file: the same, and a frame of all steps"),
            )
        ),
        "",
        "Optuna's frame has a row for each trial and none for the steps: what holds the same is the trials "
        f"alone. With all steps ours takes {found['all']:.3f} s: that is {times('sqlite')} times as fast as "
        f"Optuna's frame without them from SQLite, {times('journal')} times as fast as without them from the "
        f"journal, and {times('journal-all')} times as fast as with them from the journal.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the files, nothing is written")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", choices=("compaction", "loading"))
    asked = parser.parse_args()
    parts: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        if asked.only != "loading":
            parts.append(compaction(Path(folder), 100 if asked.quick else 1000, asked.runs))
        if asked.only != "compaction":
            parts.append(loading(Path(folder), asked.runs))
    packages = ", ".join(f"{name} {version(name)}" for name in ("pyarrow", "pandas", "dask", "optuna"))
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    machine = f"{cores} cores, Python {platform.python_version()}, {packages}."
    # By itself a run keeps about one core busy.
    machine += f" The machine was busy with other things (load {load:.1f})." if load > cores else ""
    text = "\n\n".join(["# Results at scale", f"Medians of {asked.runs} interleaved runs; {machine}",
                        *("\n".join(part) for part in parts)]) + "\n"  # fmt: skip
    print(text)
    if not asked.quick and asked.only is None:
        (Path(__file__).parent / "results.md").write_text(text)


if __name__ == "__main__":
    main()
