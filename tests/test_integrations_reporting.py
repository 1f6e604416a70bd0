"""What the callbacks for other libraries share: reports, moments to keep a model at, and whole files."""

from __future__ import annotations

import math
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from orchestrator.errors import StopTrial, UserError
from orchestrator.integrations.reporting import Members, Reporter, is_whole, newest_whole, numbers_of
from orchestrator.worker.trial import Trial, always


def made_trial(folder: Path, **changes: Any) -> tuple[Trial, list[dict[str, Any]]]:
    lines: list[dict[str, Any]] = []
    given: dict[str, Any] = {
        "id": "t", "stage": "coarse", "params": {}, "seed": 3, "checkpoint_dir": folder,
        "send": lines.append, "goes_on": always, **changes,
    }  # fmt: skip
    return Trial(**given), lines


def test_numbers_are_reported_by_their_names_in_the_sweep(tmp_path: Path) -> None:
    trial, lines = made_trial(tmp_path)
    told = Reporter(trial, {"val_acc": "val/accuracy"}, None)
    told.report(1, {"val_acc": np.float32(0.5), "loss": math.nan, "table": [1, 2], "text": "x", "none": None})
    assert lines[0]["metrics"].keys() == {"val/accuracy", "loss"}
    told.report(2, {"text": "x"})
    assert len(lines) == 1, "nothing to say"
    told.report(3, {"val_acc": 0.75})
    assert told.last["val/accuracy"] == 0.75
    assert math.isnan(told.last["loss"])
    assert numbers_of({"a": np.array(1.0), "b": np.ones(2)}) == {"a": 1.0}


def test_a_stop_is_raised_once_and_nothing_is_reported_after_it(tmp_path: Path) -> None:
    trial, lines = made_trial(tmp_path, goes_on=lambda step, metrics: step < 2)
    told = Reporter(trial, None, "epochs")
    for step in (1, 2, 3):
        told.report(step, {"a": 1.0})
    assert [line["step"] for line in lines] == [1, 2]
    with pytest.raises(StopTrial):
        told.raise_stop()
    told.raise_stop()


def test_a_process_that_trains_along_reports_nothing(tmp_path: Path) -> None:
    trial, lines = made_trial(tmp_path, leads=False, goes_on=lambda step, metrics: False)
    told = Reporter(trial, None, None)
    told.report(1, {"a": 1.0})
    assert (lines, told.stopped, told.last) == ([], None, {"a": 1.0})


@pytest.mark.parametrize(
    ("wanted", "epochs"),
    [(None, []), (2, [6, 8]), (["every 3"], [3, 6]), (["last", "every 4"], [4, 8]), (["best"], [])],
)
def test_models_are_kept_at_the_moments_of_final_runs(tmp_path: Path, wanted: Any, epochs: list[int]) -> None:
    trial, _ = made_trial(tmp_path, kind="final", scale={"checkpoints": wanted})
    members = Members(trial, "it")
    assert [epoch for epoch in range(1, 9) if members.due(epoch, 8)] == epochs
    assert members.best == (wanted in (2, ["best"]))
    of_stage = Members(made_trial(tmp_path, kind="stage", scale={"checkpoints": wanted})[0], "it")
    assert not any(of_stage.due(epoch, 8) for epoch in range(1, 9)) and not of_stage.best


def test_a_moment_that_a_trainer_does_not_know_is_refused(tmp_path: Path) -> None:
    for word, message in (("cycles", "it has no moment 'cycles'"), ("evry 3", "Did you mean .every 10.")):
        with pytest.raises(UserError, match=message):
            Members(made_trial(tmp_path, kind="final", scale={"checkpoints": [word]})[0], "it")


def test_what_was_cut_short_is_not_whole(tmp_path: Path) -> None:
    state, weights = tmp_path / "a.ckpt", tmp_path / "b.safetensors"
    with zipfile.ZipFile(state, "w") as archive:
        archive.writestr("data", b"x" * 1000)
    save_file({"a": np.ones(1000)}, weights)
    for path in (state, weights):
        assert is_whole(path)
        content = path.read_bytes()
        for length in (0, 4, 500, len(content) - 1):
            path.write_bytes(content[:length])
            assert not is_whole(path), f"{length} bytes of {path.name}"
        path.write_bytes(content)
    assert not is_whole(tmp_path / "none.ckpt")
    assert not is_whole(tmp_path / "none.safetensors")


def test_the_newest_whole_file_is_taken(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("old.ckpt", "new.ckpt", "torn.ckpt", "gone.ckpt")]
    for age, path in enumerate(paths[:3]):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("data", b"x")
        os.utime(path, (1000 + age, 1000 + age))
    paths[2].write_bytes(b"PK")
    os.utime(paths[2], (2000, 2000))
    assert newest_whole(paths) == paths[1]
    assert newest_whole(paths[2:]) is None
