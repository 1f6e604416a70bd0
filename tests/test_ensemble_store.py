"""Predictions on disk: what is stored, what is left out with a note, and what does not fit together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_predictions import (
    MadeUp,
    Values,
    candidate,
    changed,
    family,
    labels_of,
    stored,
    sweep_config,
)
from omegaconf import DictConfig

from orchestrator.ensemble.members import AVERAGE, STUDENT, Candidate, Predictions
from orchestrator.ensemble.store import (
    predict_run,
    read_library,
    read_named,
    score_of,
    write_predictions,
)
from orchestrator.ensemble.stored import Unusable, open_file, order_of
from orchestrator.ensemble.stored_library import file_of
from orchestrator.errors import UserError
from orchestrator.schema import SweepConfig
from orchestrator.sweep.directory import SweepDirectory

CONFIG = sweep_config()


def averaged(candidates: Any, config: SweepConfig, folder: Path) -> Candidate | None:
    last = candidates[-1]
    return Candidate(
        trial_id=last.trial_id, setting_id=last.setting_id, seed=last.seed, step=last.step,
        checkpoint=folder / last.trial_id / "mean.pt", config=last.config, kind=AVERAGE, model=last.model,
        parts=tuple(str(each.checkpoint) for each in candidates),
    )  # fmt: skip


def test_what_is_predicted_comes_back_as_it_was(tmp_path: Path) -> None:
    predict = MadeUp()
    directory = stored(tmp_path, CONFIG, predict=predict, average=averaged)
    for split in ("validation", "test"):
        library = read_library(directory, split)
        assert len(library) == 4 * 3
        assert [each.kind for each in library.candidates[:3]] == ["checkpoint", "checkpoint", "average"]
        assert [each.step for each in library.candidates[:3]] == [5, 10, 10]
        assert (library.samples, library.outputs) == (len(library.ids), 4)
        assert np.array_equal(library.labels(), labels_of(split))
        rows = np.array([7, 3])
        for place, each in enumerate(library.candidates):
            expected = predict(each.config, each.checkpoint, split).probabilities
            assert library.probabilities(place).tobytes() == expected.tobytes()
            assert library.probabilities(place, rows).tobytes() == expected[rows].tobytes()
    first = read_library(directory, "test").candidates[2]
    assert first.config.lr == 1e-5
    assert first.checkpoint == directory.averages / "final-A-1" / "mean.pt"
    assert first.parts[0] == str(tmp_path / "final/checkpoints/final-A-1/5.pt")
    assert (first.setting_id, first.seed, first.model) == ("A", 1, "mlp")


def test_the_file_is_as_documented(tmp_path: Path) -> None:
    directory = stored(tmp_path, CONFIG, family("A", (1,)))
    file = pq.ParquetFile(directory.predictions / "final-A-1-test.parquet")
    assert file.num_row_groups == 2
    assert file.schema_arrow.names == ["member", "sample_id", "probabilities"]
    assert file.schema_arrow.field("probabilities").type.list_size == 4
    assert set(file.read().column("member").to_pylist()) == {"step-0005", "step-0010"}
    labels = pq.ParquetFile(directory.predictions / "final-A-1-test-labels.parquet").read()
    assert labels.column_names == ["sample_id", "label"]
    # A sweep's folder may be moved, so its own files are told from there.
    said = open_file(file_of(directory, "final-A-1", "test")).said
    assert [each["checkpoint"] for each in said["members"]] == [
        "final/checkpoints/final-A-1/5.pt",
        "final/checkpoints/final-A-1/10.pt",
    ]


def test_the_score_of_a_run_is_that_of_its_best(tmp_path: Path) -> None:
    skills = {("final-A-1/5", "validation"): 0.2, ("final-A-1/10", "validation"): 3.0}
    run, predict = family("A", (1,)), MadeUp(skills)
    score = predict_run(SweepDirectory(tmp_path), CONFIG, run, predict)
    found = predict(run[1].config, run[1].checkpoint, "validation")
    assert score == (found.probabilities.argmax(axis=1) == found.labels).mean()
    loss = predict_run(SweepDirectory(tmp_path), sweep_config("val/loss"), run, predict)
    assert 0 < loss < 0.6


def test_what_is_stored_whole_is_not_predicted_again(tmp_path: Path) -> None:
    directory, run, predict = SweepDirectory(tmp_path), family("A", (1,)), MadeUp()
    predict_run(directory, CONFIG, run, predict)
    predict_run(directory, CONFIG, run, predict)
    assert len(predict.asked) == 4
    predict_run(directory, CONFIG, run[1:], predict)
    assert len(predict.asked) == 6  # other checkpoints than before
    for name in ("final-A-1-test.parquet", "final-A-1-validation.parquet", "final-A-1-test-labels.parquet"):
        path = directory.predictions / name
        path.write_bytes(path.read_bytes()[:-20])
        before = len(predict.asked)
        predict_run(directory, CONFIG, run[1:], predict)
        assert len(predict.asked) == before + 2
    assert not list(directory.predictions.glob(".*"))


def test_nothing_is_there_before_all_of_it_is(tmp_path: Path) -> None:
    directory, run, predict = SweepDirectory(tmp_path), family("A", (1,)), MadeUp()

    def killed(config: DictConfig, checkpoint: Path, split: str) -> Predictions:
        if (checkpoint.stem, split) == ("10", "test"):
            raise KeyboardInterrupt
        return predict(config, checkpoint, split)

    with pytest.raises(KeyboardInterrupt):
        predict_run(directory, CONFIG, run, killed)
    assert not list(directory.predictions.glob("*"))


def useless(checkpoint: str) -> Callable[..., Predictions]:
    """Return a predict of which each way to be of no use is a case below."""

    def predict(config: DictConfig, path: Path, split: str) -> Predictions:
        if checkpoint in str(path):
            raise EOFError("ran out of input\nand more")
        return MadeUp()(config, path, split)

    return predict


@pytest.mark.parametrize(
    ("predict", "why"),
    [
        (useless("/5.pt"), "EOFError: ran out of input"),
        (changed(MadeUp(), "/5.pt", probabilities=lambda g: g.probabilities * np.nan), "not finite"),
        (changed(MadeUp(), "/5.pt", probabilities=lambda g: g.probabilities + 1), "no probabilities"),
        (changed(MadeUp(), "/5.pt", probabilities=lambda g: g.probabilities[1:]), "do not fit"),
        (changed(MadeUp(), "/5.pt", labels=lambda g: g.labels + 3), "label 6, and 4 classes"),
        (changed(MadeUp(), "/5.pt", ids=lambda g: g.ids[:-1]), "do not fit"),
        (changed(MadeUp(), "/10.pt", ids=lambda g: g.ids + 1), "samples are not those"),
        (changed(MadeUp(), "/10.pt", labels=lambda g: g.labels[::-1]), "labels are not those"),
    ],
)
def test_a_useless_checkpoint_is_left_out_with_a_note(
    tmp_path: Path, predict: Callable[..., Predictions], why: str
) -> None:
    directory = stored(tmp_path, CONFIG, family("A", (1,)), predict)
    library = read_library(directory, "validation")
    assert len(library) == 1
    (note,) = library.skipped
    assert why in note["why"]
    assert note["checkpoint"].endswith(".pt")


def test_an_average_that_fails_leaves_the_checkpoints(tmp_path: Path) -> None:
    def fails(candidates: Any, config: SweepConfig, folder: Path) -> None:
        raise ValueError("shapes differ")

    library = read_library(stored(tmp_path, CONFIG, family("A", (1,)), average=fails), "test")
    assert len(library) == 2
    assert library.skipped == ({"checkpoint": "average of final-A-1", "why": "ValueError: shapes differ"},)


def test_none_that_can_be_used_says_why(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none of the 2 checkpoints of final-A-1 can be used: EOFError"):
        stored(tmp_path, CONFIG, family("A", (1,)), useless(".pt"))
    with pytest.raises(UserError, match="no final run's predictions are stored"):
        read_library(SweepDirectory(tmp_path), "validation")


def test_a_wrong_config_is_not_taken_for_a_damaged_file(tmp_path: Path) -> None:
    def predict(config: DictConfig, checkpoint: Path, split: str) -> Predictions:
        raise UserError("no such dataset")

    with pytest.raises(UserError, match=r"^no such dataset"):
        stored(tmp_path, CONFIG, predict=predict)


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **others: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("orchestrator.ensemble.stored.pq.ParquetWriter", full)
    with pytest.raises(UserError, match=r"No space left on device.*orchestrate retry"):
        stored(tmp_path, CONFIG)


@settings(max_examples=30)
@given(st.permutations(range(12)))
def test_samples_are_brought_into_one_order(order: list[int]) -> None:
    like = np.arange(12) * 3
    ids = like[order]
    found = order_of(ids, like)
    assert np.array_equal(ids if found is None else ids[found], like)


def test_samples_that_are_there_twice_have_no_order() -> None:
    with pytest.raises(Unusable, match="ids are there twice"):
        order_of(np.array([1, 1, 2]), np.array([2, 1, 1]))
    assert order_of(np.array([1, 1, 2]), np.array([1, 1, 2])) is None


def test_another_order_of_samples_is_brought_into_the_first(tmp_path: Path) -> None:
    turned = {
        name: lambda given, name=name: getattr(given, name)[::-1]
        for name in ("probabilities", "labels", "ids")
    }
    # Another run, and another checkpoint of the first one.
    for number, where in enumerate(("final-B-1", "final-A-1/10.pt")):
        folder = tmp_path / str(number)
        library = read_library(stored(folder, CONFIG, predict=changed(MadeUp(), where, **turned)), "test")
        straight = read_library(stored(folder / "straight", CONFIG), "test")
        assert np.array_equal(library.labels(), straight.labels())
        rows = np.array([0, 5, 2])
        for place in range(len(library)):
            assert np.array_equal(library.probabilities(place), straight.probabilities(place))
            assert np.array_equal(library.probabilities(place, rows), straight.probabilities(place, rows))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": lambda given: given.ids + 1}, "samples are not those of the first"),
        ({"ids": lambda given: np.roll(given.ids, 1)}, None),
        (
            {"probabilities": lambda given: np.full((len(given.ids), 5), 0.2, np.float32)},
            "tells 5 classes apart, not 4",
        ),
    ],
)
def test_runs_that_do_not_fit_together_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str | None
) -> None:
    directory = stored(tmp_path, CONFIG, predict=changed(MadeUp(), "final-B-1", **changes))
    with pytest.raises(UserError, match=rf"final-B-1.*final-A-1: .*{message or 'have other labels'}"):
        read_library(directory, "validation").labels()


def test_a_value_is_no_class(tmp_path: Path) -> None:
    def mixed(config: DictConfig, checkpoint: Path, split: str) -> Predictions:
        return (Values() if "final-B" in str(checkpoint) else MadeUp())(config, checkpoint, split)

    with pytest.raises(UserError, match=r"final-B-1.*it is of a regression"):
        read_library(stored(tmp_path, CONFIG, predict=mixed), "test")


@pytest.mark.parametrize("keep", [0, 100, -30])
def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path, keep: int) -> None:
    directory = stored(tmp_path, CONFIG)
    path = file_of(directory, "final-A-2", "validation")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"final-A-2-validation\.parquet: .*can't be read.*orchestrate retry"):
        read_library(directory, "validation")


def test_damage_inside_a_file_is_told_when_it_is_read(tmp_path: Path) -> None:
    directory = stored(tmp_path, CONFIG, family("A", (1,)))
    library = read_library(directory, "validation")
    path = file_of(directory, "final-A-1", "validation")
    content = bytearray(path.read_bytes())
    content[4 : len(content) // 2] = bytes(len(content) // 2 - 4)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"final-A-1-validation\.parquet: .*can't be read"):
        library.probabilities(0)
    path.unlink()
    with pytest.raises(UserError, match="can't be read"):
        library.probabilities(1)


def test_what_is_compared_is_no_candidate(tmp_path: Path) -> None:
    directory = stored(tmp_path, CONFIG, family("A", (1,)))
    own = candidate("S", 0, 0)
    student = Candidate(
        trial_id="student-00000", setting_id="S", seed=0, step=0, kind=STUDENT,
        checkpoint=tmp_path / "best.pt", config=own.config,
    )  # fmt: skip
    given = MadeUp()(own.config, own.checkpoint, "test")
    order = np.argsort(given.probabilities[:, 0])
    turned = Predictions(given.probabilities[order], given.labels[order], given.ids[order])
    write_predictions(directory, "student-00000", [(student, turned)], "test")
    library = read_library(directory, "test")
    assert len(library) == 2
    found = read_named(directory, "student-00000", "test", library.ids)
    assert np.array_equal(found.probabilities(0), given.probabilities)
    assert np.array_equal(found.labels(), given.labels)
    assert pq.ParquetFile(file_of(directory, "student-00000", "test")).read()["member"][0].as_py() == "best"
    broken = Predictions(given.probabilities * np.nan, given.labels, given.ids)
    with pytest.raises(UserError, match=r"best\.pt: ensemble: its probabilities are not finite"):
        write_predictions(directory, "student-00001", [(student, broken)], "test")


@pytest.mark.parametrize(
    ("metric", "task", "score"),
    [
        ("val/accuracy", "classification", "accuracy"),
        ("val/loss", "classification", "log_loss"),
        ("val_nll", "classification", "log_loss"),
        ("val/mae", "regression", "mae"),
        ("val/loss", "regression", "mse"),
    ],
)
def test_the_score_follows_the_metric(metric: str, task: str, score: str) -> None:
    assert score_of(sweep_config(metric), task) == score
    assert score_of(sweep_config(metric, score="log_loss"), task) == "log_loss"
