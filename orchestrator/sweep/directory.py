"""Where each fact of a sweep lies. This module knows names and formats, and decides nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import UserError
from orchestrator.sweep.files import create_from

CHECKS, STAGE, FINAL, ENSEMBLE = "checks", "stage", "final", "ensemble"
# The trials of these train a setting; the others look at the set-up before, and at the results after.
TRAINED = (STAGE, FINAL)
# Of the checks: the sanity checks, and the range test where there is one.
SANITY, RANGE_TEST = CHECK_TRIALS = ("checks", "range-test")

# of trials.parquet
_COLUMNS = ("trial_id", "setting_id", "params", "seed", "origin", "parent")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialSpec:
    """One trial as it was frozen before anything was submitted.

    `origin` is sampled, survivor, control, repeat or start_from; `parent` is the trial that the setting comes
    from: of the stage before for a promoted one, of its own stage for a repeat, or empty.
    """

    trial_id: str
    setting_id: str
    params: Mapping[str, Any]
    seed: int
    origin: str = "sampled"
    parent: str = ""


class Params(Mapping[str, Any]):
    """A setting that is read from its JSON when somebody first looks: most readers of trials never do."""

    __slots__ = ("_text", "_values")

    def __init__(self, text: str) -> None:
        self._text = text
        self._values: dict[str, Any] | None = None

    def __getitem__(self, name: str) -> Any:
        return self._read()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def __repr__(self) -> str:
        return repr(self._read())

    def _read(self) -> dict[str, Any]:
        if self._values is None:
            self._values = json.loads(self._text)
        return self._values


@dataclass(frozen=True, slots=True)
class PhaseDirectory:
    """The folder of one stage, of the final runs or of the ensemble."""

    path: Path

    @property
    def space(self) -> Path:
        """The ranges that this stage searches, and why."""
        return self.path / "space.json"

    @property
    def trials(self) -> Path:
        """The frozen settings: all of them, or the first wave."""
        return self.wave(0)

    def wave(self, number: int) -> Path:
        """The frozen settings of one wave: trials.parquet, then trials-001.parquet and on."""
        return self.path / (f"trials-{number:03d}.parquet" if number else "trials.parquet")

    @property
    def submissions(self) -> Path:
        """Intents, receipts and losses."""
        return self.path / "submissions"

    @property
    def records(self) -> Path:
        """One .jsonl for each task and attempt."""
        return self.path / "records"

    def checkpoints(self, trial_id: str) -> Path:
        """A trial's private folder, which survives a requeue."""
        return self.path / "checkpoints" / trial_id


@dataclass(frozen=True, slots=True)
class SweepDirectory:
    """The folder of one sweep."""

    path: Path

    @property
    def config(self) -> Path:
        """The composed, resolved config, frozen."""
        return self.path / "sweep.yaml"

    @property
    def asked(self) -> Path:
        """The sweep file's name and the words of the command line that changed it."""
        return self.path / "asked.json"

    @property
    def plan(self) -> Path:
        """Stages, counts, cost. Written last, so a sweep is planned when this file is there."""
        return self.path / "plan.json"

    @property
    def prior(self) -> Path:
        """Results of past studies that samplers learn from; there when the sweep file names such."""
        return self.path / "prior.json"

    @property
    def lease(self) -> Path:
        """The folder of the lease's numbered files."""
        return self.path / "lease"

    @property
    def snapshot(self) -> Path:
        """The user's code as it was when the sweep was planned."""
        return self.path / "snapshot"

    @property
    def logs(self) -> Path:
        """SLURM's and submitit's files, one folder for each submission."""
        return self.path / "logs"

    @property
    def results(self) -> Path:
        """The Parquet dataset."""
        return self.path / "results"

    @property
    def cancelled(self) -> Path:
        """There when the sweep was cancelled."""
        return self.path / "cancelled.json"

    @property
    def report(self) -> Path:
        """The HTML page."""
        return self.path / "report.html"

    @property
    def checks_result(self) -> Path:
        """What the sanity checks saw."""
        return self.path / CHECKS / "checks.json"

    @property
    def range_test(self) -> Path:
        """What the learning-rate range test found."""
        return self.path / CHECKS / "range_test.json"

    @property
    def accepted(self) -> Path:
        """There when a person wants the sweep to go on in spite of a failed check."""
        return self.path / "checks-accepted.json"

    @property
    def predictions(self) -> Path:
        """What each candidate of the ensemble predicts, as Parquet."""
        return self.path / "ensemble" / "predictions"

    @property
    def averages(self) -> Path:
        """Checkpoints whose weights are averages of others'."""
        return self.path / "ensemble" / "averages"

    @property
    def teacher(self) -> Path:
        """What the ensemble predicts for the training data, for its students."""
        return self.path / "ensemble" / "teacher.parquet"

    @property
    def choice(self) -> Path:
        """The ensemble as it was chosen on validation data, before any test label was read."""
        return self.path / "ensemble" / "choice.json"

    @property
    def ensemble_result(self) -> Path:
        """What the ensemble step chose and measured."""
        return self.path / "ensemble" / "ensemble.json"

    def phase(self, kind: str, name: str) -> PhaseDirectory:
        """Return the folder of a stage (by name), of the checks, the final runs or the ensemble."""
        return PhaseDirectory(self.path / "stages" / name if kind == STAGE else self.path / name)


def write_trials(path: Path, trials: Sequence[TrialSpec]) -> bool:
    """Freeze a phase's settings as Parquet: trial_id, setting_id, params (JSON), seed, origin, parent.

    Returns:
        False when they were frozen before: those stay, because their trials may be running already.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "trial_id": pa.array([t.trial_id for t in trials], pa.string()),
            "setting_id": pa.array([t.setting_id for t in trials], pa.string()),
            "params": pa.array([json.dumps(dict(t.params)) for t in trials], pa.string()),
            "seed": pa.array([t.seed for t in trials], pa.int64()),
            "origin": pa.array([t.origin for t in trials], pa.string()),
            "parent": pa.array([t.parent for t in trials], pa.string()),
        }
    )
    return create_from(path, lambda temporary: pq.write_table(table, temporary))


def read_trials(path: Path) -> list[TrialSpec]:
    """Read a phase's frozen settings; none yet gives an empty list.

    Raises:
        UserError: the file is damaged.
    """
    if not path.exists():
        return []
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # pq.read_table would import pandas, for which `orchestrate status` has no time.
        # Without threads: a task reads it before it forks.
        table = pq.ParquetFile(path).read(use_threads=False)
        # Column by column: a dictionary for each row takes five times as long.
        columns = [table.column(name).to_pylist() for name in _COLUMNS]
    except (pa.ArrowException, KeyError) as error:
        raise UserError(
            f"holds no settings that can be read ({' '.join(str(error).split())})",
            file=path,
            hint="Restore it from a copy: no other file says which settings its trials have",
        ) from None
    return [
        TrialSpec(
            trial_id=trial_id,
            setting_id=setting_id,
            params=Params(params),
            seed=seed,
            origin=origin,
            parent=parent,
        )
        for trial_id, setting_id, params, seed, origin, parent in zip(*columns, strict=True)
    ]


def wave_lengths(folder: PhaseDirectory) -> list[int]:
    """Return how many settings each wave of a phase has, without reading them."""
    import pyarrow.parquet as pq

    lengths: list[int] = []
    while (path := folder.wave(len(lengths))).exists():
        lengths.append(pq.ParquetFile(path).metadata.num_rows)
    return lengths


def read_waves(folder: PhaseDirectory) -> list[list[TrialSpec]]:
    """Read the frozen settings of each wave, in order; a phase that has not begun has none."""
    waves: list[list[TrialSpec]] = []
    while (path := folder.wave(len(waves))).exists():
        waves.append(read_trials(path))
    return waves
