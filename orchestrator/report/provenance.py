"""Where the results come from: code, packages, hosts and data, from `provenance.json` and the frozen config.

Nothing is trusted: an older sweep has no such file, and what is not of the form that is expected is left out.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator import __version__
from orchestrator.diagnosis import detail
from orchestrator.results.load import Results
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.sweep.provenance import provenance_path

# Packages that decide what a training gives; the others are folded.
FIRST = ("torch", "numpy", "optuna", "scikit_learn", "pandas", "pyarrow", "submitit", "hydra_core")
MOST_MACHINES = 12
Row = list[object]


def origin_rows(results: Results) -> list[Row]:
    """Return what is known of where the sweep comes from: a name and a text for each."""
    directory = SweepDirectory(results.path)
    found, config = detail.read(provenance_path(directory)), _config(directory.config)
    git, jobs = _part(found, "git"), _part(config, "jobs")
    command = jobs.get("command")
    words: dict[str, object] = {
        "planned": _moment(found.get("time") or results.plan.get("created")),
        "by": " on ".join(str(found[key]) for key in ("user", "host") if found.get(key)),
        "folder": found.get("folder"),
        "commit": _commit(git),
        "sweep file": _asked(directory),
        "job": " ".join(map(str, command)) if isinstance(command, list) else command or jobs.get("_target_"),
        "seed": config.get("seed"),
        "dataset": _dataset(_part(config, "datasets")),
        "orchestrator": found.get("orchestrator"),
        "page written by": f"orchestrator {__version__}",
        "Python": found.get("python"),
        "trained on": _machines(results),
    }
    return [[name, str(text)] for name, text in words.items() if text not in (None, "")]


def package_rows(results: Results) -> list[Row]:
    """Return each installed package and its version, those that decide most first."""
    packages = _part(detail.read(provenance_path(SweepDirectory(results.path))), "packages")
    first = [name for name in FIRST if name in packages]
    names = [*first, *sorted(str(name) for name in packages if name not in first)]
    return [[name, str(packages[name])] for name in names]


def first_packages(rows: Sequence[Row]) -> str:
    """Return the packages that decide most in one line."""
    return ", ".join(f"{name} {version}" for name, version in rows if name in FIRST)


def _config(path: Path) -> Mapping[str, Any]:
    import yaml  # type: ignore[import-untyped]  # comes with OmegaConf, and reads this ten times as fast

    try:
        found = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, Mapping) else {}


def _part(found: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    inner = found.get(key)
    return inner if isinstance(inner, Mapping) else {}


def _moment(seconds: object) -> str:
    if not isinstance(seconds, int | float) or not 0 < seconds < 1e11:
        return ""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def _commit(git: Mapping[str, Any]) -> str:
    if not git.get("commit"):
        return "none: the code was in no repository" if git else ""
    branch = f" on {git['branch']}" if git.get("branch") else ""
    changed = f", changed since (see {git.get('diff') or 'the snapshot'})" if git.get("dirty") else ""
    return f"{git['commit']}{branch}{changed}"


def _asked(directory: SweepDirectory) -> str:
    """Return the sweep file as it was asked for, with what the command line changed."""
    asked = detail.read(directory.asked)
    overrides = asked.get("overrides")
    words = [str(one) for one in overrides] if isinstance(overrides, list) else []
    return " ".join([str(asked.get("file", "")), *words]).strip()


def _dataset(datasets: Mapping[str, Any]) -> str:
    """Return what the dataset is and what its files were when the sweep was planned."""
    names = ("_target_", "name", "path", "samples", "num_classes", "fingerprint")
    known = {key.removeprefix("num_"): datasets[key] for key in names if datasets.get(key) is not None}
    return ", ".join(
        f"{value:,} {key}" if isinstance(value, int) else str(value) for key, value in known.items()
    )


def _machines(results: Results) -> str:
    """Return the machines and GPUs that ran trials, those that ran most first."""
    counts = results.trials.groupby(["host", "gpu"]).size().sort_values(ascending=False)
    rows = counts.head(MOST_MACHINES).reset_index(name="trials").to_dict("records")
    told = []
    for row in rows:
        gpu = f" ({row['gpu']})" if row["gpu"] else ""
        told.append(f"{row['host'] or 'unknown'}{gpu}: {row['trials']:,}")
    more = f" and {len(counts) - MOST_MACHINES} more" if len(counts) > MOST_MACHINES else ""
    return f"{', '.join(told)}{more} (trials)" if told else ""
