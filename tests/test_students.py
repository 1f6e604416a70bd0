"""Students: what teaches them, how the loss takes it, which are planned, and which size is taken."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from sklearn.ensemble import ExtraTreesClassifier

from orchestrator.config import load_sweep
from orchestrator.data.dataset import open_dataset
from orchestrator.data.source import CLASSIFICATION, REGRESSION
from orchestrator.ensemble import students
from orchestrator.ensemble.members import Predictions
from orchestrator.ensemble.student_sizes import Size, chosen_size, trained
from orchestrator.ensemble.students import student_specs
from orchestrator.errors import StopTrial, UserError
from orchestrator.planning.plan import Cost, Phase, Plan, Scale, plan_to_json
from orchestrator.planning.validate_student import validate_student
from orchestrator.report.ensemble_words import student_sentence
from orchestrator.schema import StudentConfig, SweepConfig
from orchestrator.space import parse_space
from orchestrator.sweep.directory import (
    ENSEMBLE,
    FINAL,
    SweepDirectory,
    TrialSpec,
    write_trials,
)
from orchestrator.sweep.files import write_json
from orchestrator.sweep.records import encode
from orchestrator.training import supervised
from orchestrator.training.checkpoints import save
from orchestrator.training.settings import TeacherSettings
from orchestrator.training.teacher import distilling, goals, read_teacher
from trained import ROOT, FakeTrial, job, same_weights

EXAMPLE = load_sweep(ROOT / "examples" / "digits.yaml")
FEW: dict[str, Any] = {
    "dataset.fraction": 60, "epochs": 30, "model.width": 32, "optimizer.lr": 0.01,
    "batch_size": 16, "select": "val/loss",
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def write(path: Path, ids: Any, probabilities: Any) -> Path:
    """Write a teacher's file as the sweep does."""
    table = np.asarray(probabilities, dtype=np.float32)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(table.ravel()), table.shape[1])
    pq.write_table(pa.table({"sample_id": pa.array(np.asarray(ids, np.int64)), "probabilities": lists}), path)
    return path


def cross_entropy(outputs: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(outputs, goal)


@settings(max_examples=30, deadline=None)
@given(
    temperature=st.floats(0.5, 10),
    weight=st.floats(0, 1),
    seed=st.integers(0, 2**31),
    scale=st.floats(0.5, 4),
)
def test_the_loss_is_hintons(temperature: float, weight: float, seed: int, scale: float) -> None:
    draw = np.random.default_rng(seed)
    outputs, teacher = draw.normal(size=(5, 4)), draw.dirichlet(np.ones(4), size=5)
    labels = draw.integers(0, 4, size=5)

    def soft(logits: Any) -> Any:
        raised = np.exp(logits - logits.max(axis=1, keepdims=True))
        return raised / raised.sum(axis=1, keepdims=True)

    wanted, student = (
        soft(np.log(np.maximum(teacher, 1e-7)) / temperature),
        soft(outputs * scale / temperature),
    )
    divergence = (wanted * (np.log(wanted) - np.log(student))).sum(axis=1).mean()
    hard = -np.log(soft(outputs)[np.arange(5), labels]).mean()
    given_goals = goals(torch.from_numpy(teacher), CLASSIFICATION)(torch.from_numpy(labels), torch.arange(5))
    loss = distilling(
        cross_entropy, TeacherSettings(temperature=temperature, weight=weight),
        task=CLASSIFICATION, logit_scale=scale,
    )  # fmt: skip
    found = loss(torch.from_numpy(outputs), given_goals).item()
    assert found == pytest.approx(
        weight * temperature**2 * divergence + (1 - weight) * hard, rel=1e-4, abs=1e-5
    )


def test_the_gradient_keeps_its_size_at_any_temperature() -> None:
    outputs = torch.randn(64, 10, generator=torch.Generator().manual_seed(0)) * 0.1
    teacher = torch.softmax(torch.randn(64, 10, generator=torch.Generator().manual_seed(1)) * 0.1, dim=1)
    sizes = []
    for temperature in (1.0, 4.0, 16.0):
        loss = distilling(
            cross_entropy, TeacherSettings(temperature=temperature, weight=1.0), task=CLASSIFICATION
        )
        leaf = outputs.clone().requires_grad_()
        torch.autograd.backward(loss(leaf, torch.cat([teacher, teacher], dim=1)))
        assert leaf.grad is not None
        sizes.append(leaf.grad.norm().item())
    assert max(sizes) / min(sizes) < 1.1


def test_a_student_of_values_is_drawn_to_its_teachers() -> None:
    made = goals(torch.tensor([[2.0], [4.0], [6.0]]), REGRESSION)
    goal = made(torch.tensor([1.0, 1.0]), torch.tensor([2, 0]))
    assert goal.tolist() == [[1.0, 6.0], [1.0, 2.0]]
    base = torch.nn.functional.l1_loss
    loss = distilling(lambda o, t: base(o.reshape(t.shape), t), TeacherSettings(weight=0.25), task=REGRESSION)
    assert loss(torch.zeros(2, 1), goal).item() == pytest.approx(0.25 * (36 + 4) / 2 + 0.75 * 1.0)
    # Labels alone, as the sanity checks have them, are for the plain loss.
    assert loss(torch.zeros(2, 1), torch.ones(2)).item() == pytest.approx(1.0)


def test_samples_without_a_teacher_have_their_labels() -> None:
    made = goals(torch.tensor([[0.5, 0.5]]), CLASSIFICATION)
    assert made(torch.tensor([1, 0]), torch.tensor([0, 7])).tolist() == [[0, 1, 0.5, 0.5], [1, 0, 1, 0]]


def test_samples_are_matched_by_their_ids(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", [30, 10, 20], [[0.3, 0.7], [0.1, 0.9], [0.2, 0.8]])
    found = read_teacher(path, np.array([10, 20, 30, 10]), 2, CLASSIFICATION)
    assert found[:, 0].tolist() == pytest.approx([0.1, 0.2, 0.3, 0.1])


@pytest.mark.parametrize(
    ("ids", "probabilities", "message"),
    [
        ([1, 2], [[0.5, 0.5]] * 2, "1 of 3 training samples are not in it, the first 3"),
        ([1, 2, 3, 3], [[0.5, 0.5]] * 4, "sample 3 is in it twice"),
        ([1, 2, 3], [[1.0]] * 3, "tells 1 classes apart, and the student 2"),
        ([1, 2, 3], [[0.5, 0.5], [0.5, math.nan], [0.5, 0.5]], "of sample 2 is not probabilities"),
        ([1, 2, 3], [[0.5, 0.5], [0.5, 0.5], [3.0, -2.0]], "of sample 3 is not probabilities"),
        ([], np.empty((0, 2)), "probabilities are none"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(
    ids: Any, probabilities: Any, message: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "t.parquet", ids, probabilities)
    with pytest.raises(UserError, match=message):
        read_teacher(path, np.array([1, 2, 3]), 2, CLASSIFICATION)


def test_a_teachers_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "half.parquet").write_bytes(b"PAR1 half")
    pq.write_table(pa.table({"sample_id": [1]}), tmp_path / "other.parquet")
    for name, message in (("half", "can't be read"), ("other", "no column 'probabilities'"), ("no", "can't")):
        with pytest.raises(UserError, match=message):
            read_teacher(tmp_path / f"{name}.parquet", np.array([1]), 2, CLASSIFICATION)
    with pytest.raises(UserError, match=r"teacher\.predictions"):
        supervised.train(
            job(**FEW, **{"teacher.predictions": str(tmp_path / "no")}), FakeTrial(tmp_path / "a")
        )
    with pytest.raises(UserError, match=r"teacher\.temperature"):
        supervised.train(job(**FEW, **{"teacher.temperature": 0.0}), FakeTrial(tmp_path / "b"))


def taught_by_a_forest(folder: Path, config: Any) -> Path:
    """Write what a forest says of the training part of a config, having learned from all other samples."""
    part = open_dataset(config.dataset).train
    full = open_dataset({**config.dataset, "fraction": 1.0}).train
    others = ~np.isin(full.ids, part.ids)
    forest = ExtraTreesClassifier(50, random_state=0)
    forest.fit(full.inputs[others].reshape(others.sum(), -1), full.targets[others])
    return write(folder / "t.parquet", part.ids, forest.predict_proba(part.inputs.reshape(len(part.ids), -1)))


def test_a_student_learns_what_labels_alone_do_not_tell(tmp_path: Path) -> None:
    path = taught_by_a_forest(tmp_path, job(**FEW))
    found = {}
    for name, extra in (("labels", {}), ("student", {"teacher.predictions": str(path)})):
        result = supervised.train(job(**FEW, **extra), FakeTrial(tmp_path / name))
        found[name] = result["val/loss"], result["val/accuracy"]
    print(found)
    assert found["student"][0] < found["labels"][0]


def test_labels_alone_are_what_weight_zero_learns_from(tmp_path: Path) -> None:
    path = taught_by_a_forest(tmp_path, job(**FEW))
    extra = {"teacher.predictions": str(path), "teacher.weight": 0.0, "epochs": 3}
    plain = supervised.train(job(**{**FEW, "epochs": 3}), FakeTrial(tmp_path / "plain"))
    weightless = supervised.train(job(**{**FEW, **extra}), FakeTrial(tmp_path / "weightless"))
    assert weightless["val/loss"] == pytest.approx(plain["val/loss"], rel=1e-4)


def test_mixed_samples_have_mixed_teachers(tmp_path: Path) -> None:
    path = taught_by_a_forest(tmp_path, job(**FEW))
    changes = {**FEW, "teacher.predictions": str(path), "augmentation.mixup": 0.4, "stopping.then": "retrain"}
    trial = FakeTrial(tmp_path / "a")
    result = supervised.train(job(**changes, checkpoints=1), trial)
    assert result["val/accuracy"] > 0.7
    assert (trial.checkpoint_dir / "all-data.pt").is_file()


def test_a_run_goes_on_with_the_same_teacher_alone(tmp_path: Path) -> None:
    path = taught_by_a_forest(tmp_path, job(**FEW))
    config = job(
        **{**FEW, "epochs": 4}, **{"teacher.predictions": str(path)}, checkpoints=4, save_seconds=0.0
    )
    whole = FakeTrial(tmp_path / "whole")
    supervised.train(config, whole)
    with pytest.raises(StopTrial):
        supervised.train(config, FakeTrial(tmp_path / "leg", stop_after=3))
    supervised.train(config, again := FakeTrial(tmp_path / "leg"))
    assert [step for step, _ in again.reports] == [3, 4]
    last = "epoch-0004.pt"
    assert same_weights(whole.checkpoint_dir / last, again.checkpoint_dir / last)

    table = pq.read_table(path)
    write(path, table["sample_id"].to_numpy(), np.full((len(table), 10), 0.1))
    supervised.train(config, other := FakeTrial(tmp_path / "leg"))
    assert [step for step, _ in other.reports] == [1, 2, 3, 4]
    assert not same_weights(whole.checkpoint_dir / last, other.checkpoint_dir / last)


def test_a_student_of_values_comes_near_its_teacher(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "epochs": 40, "model.depth": 0, "optimizer.lr": 0.05, "dataset.split.folds": 1, "checkpoints": 1,
    }  # fmt: skip
    config = job("diabetes", "regress", **changes)
    part = open_dataset(config.dataset).train
    # A teacher that disagrees with the labels, in the data's own units.
    wanted = 3 * part.targets.mean() - part.targets
    path = write(tmp_path / "t.parquet", part.ids, wanted[:, None])
    taught = job(
        "diabetes", "regress", **changes, **{"teacher.predictions": str(path), "teacher.weight": 1.0}
    )
    trial = FakeTrial(tmp_path / "a")
    supervised.train(taught, trial)
    predicted = supervised.predict(taught, trial.checkpoint_dir / "epoch-0040.pt", "train").probabilities[
        :, 0
    ]
    assert np.corrcoef(predicted, wanted)[0, 1] > 0.5
    assert abs(predicted.mean() - wanted.mean()) < 15


def student_sweep(folder: Path, **student: Any) -> tuple[SweepDirectory, SweepConfig, list[TrialSpec]]:
    """Return a made-up sweep whose students are drawn and frozen."""
    directory = SweepDirectory(folder)
    phases = tuple(Phase(kind=name, name=name, trials=3, scale=Scale()) for name in (FINAL, ENSEMBLE))
    plan = Plan(
        uid="u", name="made", metric="val/accuracy", mode="max", created=0.0, folder=str(folder), unit="core",
        phases=phases, total=Cost(), full_scale_share=None,
    )  # fmt: skip
    write_json(directory.plan, plan_to_json(plan))
    runs = [
        TrialSpec(trial_id=f"final-{number}", setting_id="s", params={"lr": 0.1 * number}, seed=0)
        for number in range(5)
    ]
    write_trials(directory.phase(FINAL, FINAL).trials, runs)
    config = SweepConfig(name="made", seed=7)
    config.metric.name = "val/accuracy"
    config.ensemble.student = StudentConfig(enabled=True, **student)
    specs = student_specs(directory, config, {"best_single": {"trial_id": "final-4"}})
    for number, wave in enumerate(([], [], specs)):
        write_trials(directory.phase(ENSEMBLE, ENSEMBLE).wave(number), wave)
    return directory, config, specs


def test_each_student_has_a_twin_that_learns_from_labels(tmp_path: Path) -> None:
    _, _, specs = student_sweep(tmp_path / "s", sizes={"model.width": [8, 32]}, seeds=2)
    assert [spec.trial_id for spec in specs] == [
        f"{origin}-{number:05d}" for number in range(4) for origin in ("student", "labels")
    ]
    for student, twin in zip(specs[::2], specs[1::2], strict=True):
        assert (student.origin, twin.origin) == ("student", "labels")
        assert (student.params, student.seed, student.setting_id) == (twin.params, twin.seed, twin.setting_id)
    drawn = [(dict(spec.params), spec.seed) for spec in specs[::2]]
    assert drawn == [({"lr": 0.4, "model.width": width}, seed) for width in (8, 32) for seed in (7, 8)]
    assert all(spec.parent == "final-4" for spec in specs)


def test_without_sizes_a_student_is_of_the_best_single_models_size(tmp_path: Path) -> None:
    directory, config, specs = student_sweep(tmp_path / "s")
    assert [dict(spec.params) for spec in specs] == [{"lr": 0.4}] * 2
    with pytest.raises(UserError, match="no final run 'gone'"):
        student_specs(directory, config, {"best_single": {"trial_id": "gone"}})


def guesses(right: float) -> Predictions:
    """Return predictions for 100 samples of which a share is right."""
    labels = np.arange(100) % 2
    sure = np.where(np.arange(100) < 100 * right, labels, 1 - labels)
    return Predictions(np.eye(2, dtype=np.float32)[sure] * 0.8 + 0.1, labels, np.arange(100))


def store(directory: SweepDirectory, config: SweepConfig, spec: TrialSpec, right: float, width: int) -> None:
    folder = directory.phase(ENSEMBLE, ENSEMBLE).checkpoints(spec.trial_id)
    save(folder / "best.pt", {"epoch": 1, "model": {"weight": torch.zeros(width, 3)}})
    students.predict(directory, config, spec, OmegaConf.create({}), lambda *_: guesses(right), folder)


def test_the_smallest_size_that_is_good_enough_is_taken(tmp_path: Path) -> None:
    directory, config, specs = student_sweep(tmp_path / "s", sizes={"w": [4, 8, 16]}, tolerance=0.02)
    ids, targets = np.arange(100), np.arange(100) % 2
    assert students.measured(directory, config, "accuracy", ids, targets) is None
    for spec, right in zip(specs, (0.90, 0.80, 0.94, 0.85, 0.95, 0.91), strict=True):
        store(directory, config, spec, right, spec.params["w"])
    found = students.measured(directory, config, "accuracy", ids[::-1], targets[::-1])
    assert found is not None
    assert found["chosen"]["params"] == {"w": 8}
    assert (found["chosen"]["trial_id"], found["chosen"]["labels_trial_id"]) == (
        "student-00001",
        "labels-00001",
    )
    assert [each["parameters"] for each in found["sizes"]] == [12, 24, 48]
    assert [each["validation"] for each in found["sizes"]] == pytest.approx([0.90, 0.94, 0.95])
    assert [each["labels_test"] for each in found["sizes"]] == pytest.approx([0.80, 0.85, 0.91])


def test_of_several_seeds_the_means_count_and_the_best_one_is_handed_over(tmp_path: Path) -> None:
    directory, config, specs = student_sweep(tmp_path / "s", seeds=3)
    for spec, right in zip(specs, (0.7, 0.6, 0.9, 0.8, 0.8, 0.5), strict=True):
        if spec.trial_id != "labels-00001":  # it failed
            store(directory, config, spec, right, 2)
    found = students.measured(directory, config, "accuracy", np.arange(100), np.arange(100) % 2)
    assert found is not None
    assert found["chosen"]["trial_id"] == "student-00001"
    assert found["chosen"]["labels_trial_id"] == "labels-00000"
    assert found["sizes"][0]["validation"] == pytest.approx(0.8)
    assert found["sizes"][0]["labels_validation"] == pytest.approx(0.55)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.integers(1, 10**6)), min_size=1, max_size=6),
    st.floats(0, 0.5),
    st.sampled_from(["accuracy", "log_loss"]),
)
def test_no_smaller_size_is_good_enough(pairs: Any, tolerance: float, score: str) -> None:
    sizes = [
        Size(
            params={}, parameters=parameters, bytes=0, students=(), labels=(), best="", best_labels=None,
            validation=value, labels_validation=None,
        )
        for value, parameters in pairs
    ]  # fmt: skip
    chosen = chosen_size(sizes, score, tolerance)
    sign = 1 if score == "accuracy" else -1
    best = max(sign * each.validation for each in sizes)
    assert sign * chosen.validation >= best - tolerance - 1e-9
    for each in sizes:
        if (each.parameters or 0) < (chosen.parameters or 0):
            assert sign * each.validation < best - tolerance + 1e-9


def test_a_students_best_file_is_found(tmp_path: Path) -> None:
    directory, config, (spec, *_) = student_sweep(tmp_path / "s")
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    with pytest.raises(UserError, match="left no checkpoint"):
        students.predict(directory, config, spec, OmegaConf.create({}), lambda *_: guesses(1.0), folder)

    def predict(config: Any, path: Path, split: str) -> Predictions:
        return guesses(float(path.read_text()))

    for name, text in (
        ("step-1.pt", "0.6"),
        ("step-2.pt", "0.9"),
        ("step-3.pt", "0.7"),
        ("notes.txt", "none"),
    ):
        (folder / name).write_text(text)
    students.predict(directory, config, spec, OmegaConf.create({}), predict, folder)
    assert trained(directory, spec.trial_id).checkpoint.name == "step-2.pt"
    (folder / "best.pt").write_text("0.5")
    students.predict(directory, config, spec, OmegaConf.create({}), predict, folder)
    assert trained(directory, spec.trial_id).checkpoint.name == "best.pt"


def good(config: SweepConfig) -> None:
    config.ensemble.student = StudentConfig(enabled=True, sizes={"model.width": [8, 16], "model.depth": [1]})


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("", good),
        ("sizes.model.widht", lambda c: c.ensemble.student.sizes.update({"model.widht": [8]})),
        ("sizes.model.width", lambda c: c.ensemble.student.sizes.update({"model.width": 8})),
        ("sizes.model.width", lambda c: c.ensemble.student.sizes.update({"model.width": []})),
        ("sizes.model.width", lambda c: c.ensemble.student.sizes.update({"model.width": [0]})),
        ("sizes.model.width", lambda c: c.ensemble.student.sizes.update({"model.width": [math.nan]})),
        ("sizes.model.width", lambda c: c.ensemble.student.sizes.update({"model.width": [[8]]})),
        ("sizes.model", lambda c: c.ensemble.student.sizes.update({"model": [8]})),
        ("sizes.epochs", lambda c: c.ensemble.student.sizes.update({"epochs": [8]})),
        ("sizes.model.depth", lambda c: c.tied.update({"model.depth": "1 + 1"})),
        ("seeds", lambda c: setattr(c.ensemble.student, "seeds", 0)),
        ("epochs", lambda c: setattr(c.ensemble.student, "epochs", 0)),
        ("temperature", lambda c: setattr(c.ensemble.student, "temperature", math.nan)),
        ("weight", lambda c: setattr(c.ensemble.student, "weight", 1.5)),
        ("tolerance", lambda c: setattr(c.ensemble.student, "tolerance", -1.0)),
        ("enabled", lambda c: setattr(c.final, "top", 0)),
        ("enabled", lambda c: setattr(c.jobs, "predict", None)),
        ("enabled", lambda c: c.jobs.scale.pop("teacher")),
    ],
)
def test_what_is_declared_of_students_is_checked(key: str, change: Callable[[SweepConfig], object]) -> None:
    config = copy.deepcopy(EXAMPLE)
    good(config)
    change(config)
    space = parse_space(config.space, config.jobs.limits, "sweep.yaml")
    if not key:
        validate_student(config, space, "sweep.yaml")
        return
    with pytest.raises(UserError) as caught:
        validate_student(config, space, "sweep.yaml")
    assert caught.value.key == f"ensemble.student.{key}"


@pytest.mark.parametrize(
    ("drawn", "lines", "why"),
    [
        ([], [], "the step that chooses the ensemble was lost when students were to be drawn"),
        ([], [("choose", "failed", "")], "the step that chooses the ensemble failed when"),
        (["student"], [], "none of the 1 that were drawn left predictions"),
        (["student"], [("student", "failed", "Traceback\nValueError: no")], "the last error: ValueError: no"),
    ],
)
def test_that_there_is_no_student_has_a_reason(
    tmp_path: Path, drawn: list[str], lines: list[tuple[str, str, str]], why: str
) -> None:
    directory, config, _ = student_sweep(tmp_path / "s")
    phase = directory.phase(ENSEMBLE, ENSEMBLE)
    for number, names in enumerate(([], ["choose"], drawn)):
        phase.wave(number).unlink()
        specs = [TrialSpec(trial_id=one, setting_id="", params={}, seed=0, origin=one) for one in names]
        write_trials(phase.wave(number), specs)
    phase.records.mkdir()
    ended = [
        {"kind": "outcome", "trial": trial, "state": state, "metrics": {}, "error": error}
        for trial, state, error in lines
    ]
    (phase.records / "0001-0000-0.jsonl").write_text("".join(encode(line) for line in ended))
    reason = students.why_none(directory, config)
    assert why in reason
    assert student_sentence({"student_missing": reason}) == f"No student: {reason}."
    config.ensemble.student.enabled = False
    assert students.why_none(directory, config) == ""
    assert student_sentence({"student_missing": ""}) == student_sentence({}) == ""
