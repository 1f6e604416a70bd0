"""A sweep as a log folder of TensorBoard, read back by its own reader; and the command that shares."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from commands import write_user_sweep
from made_sweep import METRIC, make_sweep, run_a_failed_one_again
from orchestrator.cli import main
from orchestrator.control.create import freeze_plan, work_out
from orchestrator.control.draw import freeze
from orchestrator.errors import UserError
from orchestrator.integrations import alone, tensorboard_share
from orchestrator.integrations.ended import ended_trials
from orchestrator.integrations.tensorboard_share import MARK, share_with_tensorboard
from orchestrator.results.compact import compact
from orchestrator.results.load import load_results
from orchestrator.sweep.directory import read_trials
from orchestrator.sweep.files import write_atomic
from orchestrator.sweep.lease import hold
from orchestrator.sweep.records import encode

pytest.importorskip("tensorboard", reason="needs TensorBoard: pip install -e '.[tensorboard]'")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata


def made(path: Path, **changes: Any) -> Path:
    given: dict[str, Any] = {"trials": (18, 4), "finals": 3, "tasks": 1, **changes}
    sweep = make_sweep(path / "made", **given)
    compact(sweep)
    return sweep


def share(sweep: Path, out: Path) -> dict[str, tuple[int, int, int | None]]:
    shared = share_with_tensorboard(sweep, out)
    return {one.name: (one.trials, one.added, one.replaced) for one in shared}


def tree(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def read(run: Path) -> EventAccumulator:
    assert len(list(run.glob("*tfevents*"))) == 1
    reader = EventAccumulator(str(run), size_guidance={"scalars": 0, "tensors": 0})
    reader.Reload()
    return reader


def points(reader: EventAccumulator, tag: str) -> list[tuple[int, float, float]]:
    return [(one.step, one.value, one.wall_time) for one in reader.Scalars(tag)]


def session(reader: EventAccumulator) -> tuple[Any, Any]:
    content = reader.SummaryMetadata
    start = metadata.parse_session_start_info_plugin_data(
        content(metadata.SESSION_START_INFO_TAG).plugin_data.content
    )
    end = metadata.parse_session_end_info_plugin_data(
        content(metadata.SESSION_END_INFO_TAG).plugin_data.content
    )
    return start, end


def plain(value: Any) -> Any:
    return getattr(value, value.WhichOneof("kind"))


def test_a_sweep_becomes_a_folder_of_runs(tmp_path: Path) -> None:
    sweep, out = made(tmp_path), tmp_path / "logs"
    assert share(sweep, out) == {"coarse": (18, 18, 0), "medium": (4, 4, 0), "final": (3, 3, 0)}
    results = load_results(sweep)
    assert {row["state"] for row in results.trials.to_dict("records")} == {"failed", "diverged", "completed"}
    for stage in results.stages:
        for trial in ended_trials(results, stage):
            reader = read(out / stage / trial.trial_id)
            start, end = session(reader)
            assert end.status == (2 if trial.state == "failed" else 1)
            assert (start.start_time_secs, end.end_time_secs) == (trial.began, trial.ended)
            shown = {name: plain(value) for name, value in start.hparams.items()}
            assert shown.items() >= dict(trial.params).items()
            assert (shown["sweep.stage"], shown["sweep.state"]) == (stage, trial.state)
            assert set(reader.Tags()["scalars"]) == {*trial.curves, *trial.outcome}
            for name, values in trial.curves.items():
                for (step, value, at), (was, expected, when) in zip(
                    points(reader, name), values, strict=True
                ):
                    assert (step, at) == (was, when)
                    assert math.isclose(value, expected, rel_tol=1e-6) or (
                        math.isnan(value) and math.isnan(expected)
                    )
            assert ("error" in reader.Tags()["tensors"]) == (trial.state == "failed")
    assert points(read(out / "ensemble"), "test/ensemble")[0][1] == pytest.approx(0.97)
    columns = metadata.parse_experiment_plugin_data(
        read(out).SummaryMetadata(metadata.EXPERIMENT_TAG).plugin_data.content
    )
    assert {one.name for one in columns.hparam_infos} >= {"optimizer.lr", "model.width", "sweep.stage"}
    assert columns.metric_infos[0].display_name == f"objective ({METRIC})"


def test_again_adds_what_is_new_and_replaces_what_changed(tmp_path: Path) -> None:
    out = tmp_path / "logs"
    first = share(made(tmp_path, done=0.4), out)["coarse"][0]
    before = tree(out)
    assert 0 < first < 18
    sweep = made(tmp_path)
    assert share(sweep, out)["coarse"] == (18, 18 - first, 0)
    after = tree(out)
    assert before.items() <= after.items()
    assert {added for _, added, _ in share(sweep, out).values()} == {0}
    assert tree(out) == after
    name = run_a_failed_one_again(sweep)
    assert share(sweep, out)["coarse"] == (18, 0, 1)
    assert points(read(out / "coarse" / name), "objective")[0][1] == 0.5
    assert len(tree(out)) == len(after)


def test_what_dies_anywhere_is_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = made(tmp_path, trials=(3,), finals=0)
    share(sweep, tmp_path / "whole")
    whole, write = tree(tmp_path / "whole"), write_atomic
    for dies_after in range(4):
        left = iter(range(dies_after))

        def dying(path: Path, content: bytes, left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt
            write(path, content)

        out = tmp_path / f"dies after {dies_after}"
        with monkeypatch.context() as patch:
            patch.setattr(tensorboard_share, "write_atomic", dying)
            with pytest.raises(KeyboardInterrupt):
                share(sweep, out)
        share(sweep, out)
        assert tree(out) == whole
    # One that died between the new file and the removal of the old one, and one before it gave it its name.
    first, second = (tmp_path / f"whole/coarse/coarse-0000{number}" for number in range(2))
    (first / "events.out.tfevents.0000000001.0000.orchestrator").touch()
    next(second.iterdir()).rename(second / "staged")
    share(sweep, tmp_path / "whole")
    assert tree(tmp_path / "whole") == whole


def test_hostile_names_and_mixed_choices_come_through(tmp_path: Path) -> None:
    sweep, out = made(tmp_path, trials=(18,), finals=0, hostile=True), tmp_path / "logs"
    share(sweep, out)
    kinds = set()
    for run in sorted((out / "coarse").iterdir()):
        reader = read(run)
        start, _ = session(reader)
        kinds.add(start.hparams["mixed"].WhichOneof("kind"))
        assert "<img src=x onerror=alert(1)>" in start.hparams
        if "error" in reader.Tags()["tensors"]:
            words = reader.Tensors("error")[0].tensor_proto.string_val[0].decode()
            assert "</script>" in words
            assert all(line.startswith("    ") for line in words.splitlines())
    assert kinds == {"string_value"}


def test_metrics_that_are_called_like_ours_are_told_apart(tmp_path: Path) -> None:
    sweep = made(tmp_path, trials=(4,), finals=0)
    for records in (sweep / "stages/coarse/records").iterdir():
        records.write_text(records.read_text().replace("train/loss", "objective"))
    (sweep / "results").rename(tmp_path / "old")
    compact(sweep)
    trial = next(ended_trials(load_results(sweep), "coarse"))
    assert set(trial.curves) == {METRIC, "reported/objective"}
    assert trial.outcome["objective"] == trial.curves[METRIC][-1][1]


def test_what_holds_something_else_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = made(tmp_path, trials=(2,), finals=0)
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / MARK).write_text(json.dumps({"uid": "other", "sweep": "<b>"}))
    for name, words in (
        ("file", "is no folder"),
        ("file/below", "can't be written to"),
        ("full", "holds something else. Give a folder of its own, such as .*full/digits"),
        ("other", "holds the trials of another sweep"),
    ):
        before = tree(tmp_path)
        with pytest.raises(UserError, match=words):
            share(sweep, tmp_path / name)
        assert {name for name in tree(tmp_path) if "lease" not in name} == {
            name for name in before if "lease" not in name
        }
    monkeypatch.setattr(alone, "PATIENCE_SECONDS", 0.0)
    with (
        hold(sweep / "lease-share", "orchestrate share"),
        pytest.raises(UserError, match="is being shared by"),
    ):
        share(sweep, tmp_path / "logs")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"coarse-to-fine-orchestrator\[tensorboard\]"):
        share(sweep, tmp_path / "logs")


def test_the_command_shares_and_says_how_to_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plan = work_out(write_user_sweep(tmp_path), [])
    freeze_plan(plan)
    folder = plan.directory.phase("stage", "coarse")
    freeze(plan.directory, plan.plan, plan.config, plan.plan.stages[0], 0)
    words = ["share", "sweeps/mine", "--to", "tensorboard", "--out", "logs"]
    assert "no trial has ended yet" in CliRunner().invoke(main, words).output
    lines: list[dict[str, Any]] = [{"kind": "task", "token": "t", "submission": 1, "task": 0, "attempt": 1}]
    for number, spec in enumerate(read_trials(folder.trials)[:3]):
        end = {"state": "completed", "metrics": {"score": 0.1 * number}, "seconds": 1.0, "time": 2e9 + number}
        lines.append({"kind": "outcome", "trial": spec.trial_id, **end})
    folder.records.mkdir(parents=True, exist_ok=True)
    (folder.records / "1-0-1.jsonl").write_text("".join(encode(line) for line in lines))
    shown = CliRunner().invoke(main, words)
    assert shown.exit_code == 0, shown.output
    assert "coarse: 3 trials, 3 of them new\nlook at them: tensorboard --logdir logs" in shown.output
    again = json.loads(CliRunner().invoke(main, [*words, "--json"]).stdout)
    assert again == [{"name": "coarse", "stage": "coarse", "trials": 3, "added": 0, "replaced": 0}]
    # Sharing is no reason to draw the report.
    assert not plan.directory.report.exists()
    for more, problem in (
        (["--name", "x"], "there is no name to give"),
        (["--out", " "], "--out: says nothing"),
        (["--to", "mlflow", "--out", "ftp://x"], "ftp"),
    ):
        refused = CliRunner().invoke(main, [*words, *more])
        assert refused.exit_code == 2, refused.output
        assert problem in refused.output or "needs the package mlflow-skinny" in refused.output
