"""Ensembles: what may be a member, how members are weighed, and that test data decide nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from orchestrator.ensemble.build import build_ensemble
from orchestrator.ensemble.combine import accuracy, average, greedy, log_loss, merit, weighted
from orchestrator.ensemble.members import Candidate, Predictions, allowed, of_best_setting
from orchestrator.errors import UserError

Probabilities = NDArray[np.float32]


def candidate(setting: str, seed: int, step: int) -> Candidate:
    return Candidate(
        trial_id=f"{setting}-{seed}",
        setting_id=setting,
        seed=seed,
        step=step,
        checkpoint=Path(f"{setting}-{seed}-{step}.pt"),
        config=OmegaConf.create({"setting": setting}),
    )


FAMILY = [candidate(setting, seed, step) for setting in "AB" for seed in (3, 1, 2) for step in (5, 10)]
ALL = ("seeds", "settings", "checkpoints")


def noisy(rng: np.random.Generator, labels: NDArray[np.int64], skill: float) -> Probabilities:
    """Return probabilities (n, 4) that lean towards the right class by `skill`."""
    logits = rng.normal(size=(len(labels), 4))
    logits[np.arange(len(labels)), labels] += skill
    odds = np.exp(logits)
    result: Probabilities = (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)
    return result


class FakePredict:
    """Predictions by checkpoint and split, and a memory of what was asked for."""

    def __init__(self, skills: dict[str, float], test_skills: dict[str, float] | None = None) -> None:
        self.asked: list[tuple[str, str]] = []
        self._skills = {"validation": skills, "test": test_skills or skills}

    def __call__(self, config: DictConfig, checkpoint: Path, split: str) -> Predictions:
        self.asked.append((checkpoint.name, split))
        offset = 0 if split == "validation" else 1000
        labels = np.random.default_rng(offset).integers(0, 4, 400)
        rng = np.random.default_rng([offset, *checkpoint.name.encode()])
        skill = self._skills[split].get(checkpoint.name, 1.0)
        return Predictions(noisy(rng, labels, skill), labels, np.arange(400) + offset)


def build(predict: Callable[..., Predictions], **changes: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {"members": ALL, "combine": "greedy", "max_members": 8} | changes
    return build_ensemble(changes.pop("candidates", FAMILY), predict, **_without(arguments, "candidates"))


def _without(mapping: dict[str, Any], key: str) -> dict[str, Any]:
    return {each: value for each, value in mapping.items() if each != key}


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        (ALL, 12),
        (("seeds", "settings"), 6),
        (("settings", "checkpoints"), 4),
        (("settings",), 2),
    ],
)
def test_what_may_be_a_member(members: tuple[str, ...], expected: int) -> None:
    chosen = allowed(FAMILY, members)
    assert len(chosen) == expected
    if "checkpoints" not in members:
        assert {each.step for each in chosen} == {10}
    if "seeds" not in members:
        assert {each.seed for each in chosen} == {1}


def test_the_best_setting_is_best_on_average() -> None:
    merits = [0.5, 0.9, 0.5, 0.5, 0.5, 0.5, *[0.7] * 6]
    assert of_best_setting(FAMILY, merits) == [6, 7, 8, 9, 10, 11]


def test_without_settings_all_members_have_one() -> None:
    predict = FakePredict({each.checkpoint.name: 2.0 for each in FAMILY if each.setting_id == "B"})
    result = build(predict, members=("seeds", "checkpoints"))
    assert {each["setting_id"] for each in result["members"]} == {"B"}


def test_scores() -> None:
    probabilities = np.array([[0.5, 0.5, 0.0], [0.1, 0.2, 0.7]], dtype=np.float32)
    assert accuracy(probabilities, np.array([0, 1])) == 0.5
    assert log_loss(probabilities, np.array([0, 2])) == pytest.approx(-(np.log(0.5) + np.log(0.7)) / 2)
    assert log_loss(probabilities, np.array([2, 2])) == pytest.approx((27.631 - np.log(0.7)) / 2, abs=1e-3)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 7), st.integers(1, 9), st.sampled_from(["accuracy", "log_loss"]))
def test_greedy_is_never_worse_than_the_best_on_what_it_chose_by(
    seed: int, count: int, most: int, score: str
) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, 60)
    candidates = [noisy(rng, labels, rng.uniform(0, 3)) for _ in range(count)]
    weights = greedy(candidates, labels, score=score, max_members=most)
    assert 1 <= weights.sum() <= most
    best = max(merit(score, each, labels) for each in candidates)
    reached = merit(score, weighted(candidates, weights.tolist()), labels)
    assert reached[0] >= best[0] - 1e-9


def test_greedy_finds_members_that_complement_each_other() -> None:
    labels = np.array([0, 1] * 50)
    sure = np.where(labels[:, None] == np.arange(2), 0.9, 0.1).astype(np.float32)
    doubtful = np.where(labels[:, None] == np.arange(2), 0.4, 0.6).astype(np.float32)
    first, second = sure.copy(), sure.copy()
    first[:40], second[60:] = doubtful[:40], doubtful[60:]
    useless = np.full((100, 2), 0.5, dtype=np.float32)
    weights = greedy([useless, first, second], labels, score="accuracy", max_members=5)
    assert weights[0] == 0
    assert weights[1] == weights[2] > 0
    assert accuracy(weighted([useless, first, second], weights.tolist()), labels) == 1.0


def test_equal_accuracies_are_decided_by_log_loss() -> None:
    labels = np.array([0, 1] * 10)
    right = labels[:, None] == np.arange(2)
    timid, sure = (np.where(right, chance, 1 - chance).astype(np.float32) for chance in (0.6, 0.9))
    assert greedy([timid, sure], labels, score="accuracy", max_members=3).tolist() == [0, 1]
    assert average([timid, sure], labels, score="accuracy", max_members=1).tolist() == [0, 1]


def test_average_takes_the_best_with_equal_weights() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 500)
    candidates = [noisy(rng, labels, skill) for skill in (0.5, 3.0, 1.0, 2.0)]
    assert average(candidates, labels, score="log_loss", max_members=2).tolist() == [0, 1, 0, 1]


def test_an_ensemble_of_equals_beats_each() -> None:
    result = build(FakePredict({}))
    for part in ("validation", "test"):
        assert result[part]["ensemble"] > result[part]["best_single"] >= 0.5
        assert result[part]["ensemble"] > result[part]["average_member"]
    assert result["candidates"] == 12
    assert sum(each["weight"] for each in result["members"]) <= 8
    assert result["test_samples"] == 400
    assert (result["score"], result["mode"], result["combine"]) == ("accuracy", "max", "greedy")
    assert json.loads(json.dumps(result)) == result


def test_test_data_are_read_once_for_what_was_chosen_and_decide_nothing() -> None:
    names = [each.checkpoint.name for each in FAMILY]
    skills = dict(zip(names, np.linspace(0.5, 2.5, 12).tolist(), strict=True))
    one, other = FakePredict(skills), FakePredict(skills, {name: 3.0 - skills[name] for name in names})
    first, second = build(one, max_members=3), build(other, max_members=3)
    assert first["members"] == second["members"]
    assert first["best_single"] == second["best_single"]
    assert first["test"] != second["test"]
    assert [name for name, split in one.asked if split == "validation"] == names
    tested = [name for name, split in one.asked if split == "test"]
    chosen = {each["checkpoint"] for each in [*first["members"], first["best_single"]]}
    assert sorted(tested) == sorted(chosen)
    assert [split for _, split in one.asked].index("test") == 12  # after all of validation


def test_an_unreadable_checkpoint_is_left_out_with_a_note() -> None:
    fine = FakePredict({})

    def predict(config: DictConfig, checkpoint: Path, split: str) -> Predictions:
        if checkpoint.name == "A-3-5.pt":
            raise EOFError("ran out of input\nand more")
        given = fine(config, checkpoint, split)
        return (
            Predictions(given.probabilities * np.nan, given.labels, given.ids)
            if "B-1-5" in str(checkpoint)
            else given
        )

    progress: list[tuple[int, int]] = []
    result = build(predict, progress=lambda done, total: progress.append((done, total)))
    assert result["candidates"] == 10
    assert result["skipped"] == [
        {"checkpoint": "A-3-5.pt", "why": "EOFError: ran out of input"},
        {"checkpoint": "B-1-5.pt", "why": "ValueError: its probabilities are not finite"},
    ]
    assert progress == [(done, 12) for done in range(1, 13)]


def test_candidates_that_do_not_fit_together_are_refused() -> None:
    fine = FakePredict({})

    def spoiled(change: Callable[[Predictions], Predictions]) -> Callable[..., Predictions]:
        def predict(config: DictConfig, checkpoint: Path, split: str) -> Predictions:
            given = fine(config, checkpoint, split)
            return change(given) if checkpoint.name == "B-1-5.pt" else given

        return predict

    def shifted(given: Predictions) -> Predictions:
        return Predictions(given.probabilities, given.labels, given.ids + 1)

    def narrower(given: Predictions) -> Predictions:
        return Predictions(given.probabilities[:, :3], given.labels, given.ids)

    def shorter(given: Predictions) -> Predictions:
        return Predictions(given.probabilities[1:], given.labels, given.ids)

    for change, message in [
        (shifted, "samples are not those of the first"),
        (narrower, "tells 3 classes apart, the first candidate 4"),
        (shorter, "do not fit 400 labels"),
    ]:
        with pytest.raises(UserError, match=rf"B-1-5\.pt.*{message}"):
            build(spoiled(change))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"members": ["seed"]}, "Did you mean 'seeds'"),
        ({"combine": "gredy"}, "Did you mean 'greedy'"),
        ({"score": "acuracy"}, "Did you mean 'accuracy'"),
        ({"max_members": 0}, "0 is below 1"),
        ({"candidates": []}, "none of 0 checkpoints"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(FakePredict({}), **changes)


def test_none_readable_says_why() -> None:
    def predict(config: DictConfig, checkpoint: Path, split: str) -> Predictions:
        raise OSError("disk on fire")

    with pytest.raises(UserError, match="none of 12 checkpoints can be read: OSError: disk on fire"):
        build(predict)


def test_wrong_user_settings_are_not_taken_for_a_damaged_file() -> None:
    def predict(config: DictConfig, checkpoint: Path, split: str) -> Predictions:
        raise UserError("no such dataset")

    with pytest.raises(UserError, match=r"^no such dataset"):
        build(predict)


def test_an_ensemble_of_real_checkpoints(tmp_path: Path) -> None:
    from orchestrator.training import supervised

    root = Path(__file__).parent.parent
    candidates: list[Candidate] = []

    class Trial:
        """Makes candidates of what is kept."""

        def __init__(self, config: DictConfig) -> None:
            self.config, self.checkpoint_dir = config, tmp_path / str(config.seed)
            self.checkpoint_dir.mkdir()

        def report(self, step: int, metrics: dict[str, float]) -> None:
            pass

        def keep(self, path: Path, step: int) -> None:
            name, config = f"w16-{self.config.seed}", self.config
            each = Candidate(
                trial_id=name, setting_id="w16", seed=config.seed, step=step, checkpoint=path, config=config
            )
            candidates.append(each)

    for seed in range(3):
        config = OmegaConf.load(root / "jobs" / "classify.yaml").config
        config.dataset = OmegaConf.load(root / "datasets" / "digits.yaml")
        config.merge_with({"model": {"width": 16}, "epochs": 12, "seed": seed, "checkpoints": 2})
        assert isinstance(config, DictConfig)
        supervised.train(config, Trial(config))
    candidates[1].checkpoint.write_bytes(b"torn")
    result = build_ensemble(candidates, supervised.predict, members=ALL, combine="greedy", max_members=6)
    assert [each["checkpoint"] for each in result["skipped"]] == [str(candidates[1].checkpoint)]
    assert len({each["seed"] for each in result["members"]}) > 1
    assert result["validation"]["ensemble"] >= result["validation"]["best_single"]
    assert result["test"]["ensemble"] > result["test"]["average_member"] > 0.75
    assert result["test_samples"] > 350
