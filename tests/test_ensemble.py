"""Ensembles: what may be a member, what is chosen, that test labels decide nothing, and combining anew."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_predictions import (
    MadeUp,
    candidate,
    changed,
    family,
    labels_of,
    stored,
    sweep_config,
)
from omegaconf import DictConfig, OmegaConf

from orchestrator.commands.combining import with_settings
from orchestrator.ensemble.ablation import rows
from orchestrator.ensemble.anew import combine_anew, meaning, preview
from orchestrator.ensemble.choose import choose, teach
from orchestrator.ensemble.combine import Combination
from orchestrator.ensemble.fitted import Fitted, described_key
from orchestrator.ensemble.measure import measure
from orchestrator.ensemble.members import AVERAGE, Candidate, Predictions, allowed
from orchestrator.ensemble.store import predict_run, read_library, write_predictions
from orchestrator.errors import UserError
from orchestrator.schema import MEMBERS, SweepConfig
from orchestrator.sweep.directory import SweepDirectory

FAMILY = family("ABC", (1, 2), (5, 10))
AVERAGES = [replace(each, kind=AVERAGE) for each in FAMILY if each.step == 10]
CONFIG = sweep_config()
QUICK = sweep_config(combine="average")


def merits_of(best: Candidate, candidates: list[Candidate]) -> list[tuple[float, ...]]:
    return [(1.0 if each is best else 0.5 - 0.01 * place, 0.0) for place, each in enumerate(candidates)]


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ((), {"B-2/10"}),
        (("checkpoints",), {"B-2/5", "B-2/10"}),
        (("seeds",), {"B-1/5", "B-2/10"}),
        (("seeds", "checkpoints"), {"B-1/5", "B-1/10", "B-2/5", "B-2/10"}),
        (("settings",), {"A-1/5", "B-2/10"}),
        (("models",), {"B-2/10", "C-1/5"}),
        (("averages",), {"B-2/10", "B-2/average"}),
        (("models", "settings"), {"A-1/5", "B-2/10", "C-1/5"}),
    ],
)
def test_what_may_be_a_member(kinds: tuple[str, ...], expected: set[str]) -> None:
    # B-2/10 is best, then the order: so A-1/5 is A's best, B-1/5 that of its run.
    pool = [*FAMILY, *AVERAGES]
    places = allowed(pool, merits_of(FAMILY[7], pool), kinds)
    assert places == sorted(places)
    names = {
        f"{each.setting_id}-{each.seed}/{each.step if each.kind != AVERAGE else AVERAGE}"
        for each in (pool[place] for place in places)
    }
    assert names == expected


def test_all_kinds_let_all_in() -> None:
    pool = [*FAMILY, *AVERAGES]
    assert allowed(pool, merits_of(pool[0], pool), MEMBERS) == list(range(len(pool)))
    with pytest.raises(UserError, match="Did you mean 'seeds'"):
        allowed(pool, merits_of(pool[0], pool), ["seed"])


@settings(deadline=None, max_examples=50)
@given(st.permutations(range(12)), st.sets(st.sampled_from(MEMBERS)))
def test_the_best_is_always_let_in_and_more_kinds_let_more_in(order: list[int], kinds: set[str]) -> None:
    merits = [(float(place), 0.0) for place in order]
    places = allowed(FAMILY, merits, sorted(kinds))
    assert order.index(11) in places
    for kind in MEMBERS:
        assert set(places) <= set(allowed(FAMILY, merits, sorted({*kinds, kind})))


def test_the_ablation_tells_kinds_that_differ() -> None:
    pool = [*FAMILY, *AVERAGES]
    kinds = [some for some, _ in rows(pool, merits_of(FAMILY[7], pool), MEMBERS)]
    assert kinds[:5] == [(kind,) for kind in MEMBERS]
    assert kinds[5:] == [MEMBERS[:2], MEMBERS[:3], MEMBERS[:4], MEMBERS]
    one = family("A", (1,), (5, 10))
    assert [some for some, _ in rows(one, merits_of(one[0], one), MEMBERS)] == [("checkpoints",)]
    assert rows(one[:1], [(0.0,)], MEMBERS) == []


@pytest.mark.parametrize("combine", ["average", "logits", "greedy", "blend", "stacking"])
def test_what_is_chosen_is_written_down(tmp_path: Path, combine: str) -> None:
    config = sweep_config(combine=combine)
    directory = stored(tmp_path, config, FAMILY)
    choice = choose(directory, config)
    assert json.loads(directory.choice.read_text()) == choice
    assert (choice["combine"], choice["score"], choice["mode"]) == (combine, "accuracy", "max")
    assert choice["candidates"] == 12
    assert list(choice["nested"]["methods"]) == [combine]
    assert sum(each["weight"] for each in choice["members"]) == pytest.approx(1)
    assert 1 < len(choice["members"]) <= 6
    assert choice["validation"]["ensemble"] > choice["validation"]["best_single"]
    assert choice["validation"]["best_single"] >= choice["validation"]["average_member"]
    # What was written down predicts what was measured.
    library = read_library(directory, "validation")
    members = tuple(described_key(each) for each in choice["members"])
    found = Fitted(members, Combination.from_json(choice["combination"])).apply(library)
    right = float((found.argmax(axis=1) == labels_of("validation")).mean())
    assert right == choice["validation"]["ensemble"]


def test_a_choice_is_made_once(tmp_path: Path) -> None:
    directory = stored(tmp_path, QUICK)
    first = choose(directory, QUICK)
    assert choose(directory, sweep_config(combine="greedy", max_members=1)) == first
    again = stored(tmp_path / "again", QUICK)
    assert choose(again, QUICK)["members"][0]["weight"] == first["members"][0]["weight"]
    assert choose(again, QUICK)["validation"] == first["validation"]


def test_auto_is_nested_validations_choice(tmp_path: Path) -> None:
    choice = choose(stored(tmp_path, CONFIG), CONFIG)
    assert choice["combine"] == choice["nested"]["chosen"]
    assert len(choice["nested"]["methods"]) > 2
    assert choice["nested"]["why"]
    assert set(choice["methods"]) >= set(choice["nested"]["methods"])


def test_without_models_all_members_have_the_best_ones(tmp_path: Path) -> None:
    skills = {(f"final-C-{seed}/{step}", "validation"): 2.0 for seed in (1, 2) for step in (5, 10)}
    config = sweep_config(combine="logits", members=["seeds", "settings", "checkpoints"])
    choice = choose(stored(tmp_path, config, FAMILY, MadeUp(skills)), config)
    assert {each["model"] for each in choice["members"]} == {"cnn"}
    assert choice["candidates"] == 4


def test_test_labels_are_read_by_the_measuring_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestrator.ensemble import stored as files

    opened: list[str] = []
    read = files.read_labels

    def spied(path: Path) -> Any:
        opened.append(path.name)
        return read(path)

    monkeypatch.setattr("orchestrator.ensemble.stored.read_labels", spied)
    directory = stored(tmp_path, QUICK)
    stored(tmp_path, QUICK)
    choice = choose(directory, QUICK)
    preview(directory, QUICK)
    assert opened
    assert not [name for name in opened if "test" in name]
    measure(directory, QUICK)
    assert [name for name in opened if "test" in name]
    assert choose(directory, QUICK) == choice


def test_test_labels_decide_nothing(tmp_path: Path) -> None:
    turned = changed(MadeUp(), "final", labels=lambda g: g.labels if len(g.ids) != 150 else 3 - g.labels)
    one, other = stored(tmp_path / "a", QUICK), stored(tmp_path / "b", QUICK, predict=turned)
    first, second = (choose(each, QUICK) for each in (one, other))
    assert first["combination"] == second["combination"]
    assert first["validation"] == second["validation"]
    assert measure(one, QUICK)["test"]["ensemble"] > measure(other, QUICK)["test"]["ensemble"]


def test_nothing_chosen_and_nothing_stored_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"choice\.json: no ensemble is chosen yet"):
        measure(SweepDirectory(tmp_path), CONFIG)
    with pytest.raises(UserError, match="no final run's predictions are stored"):
        choose(SweepDirectory(tmp_path), CONFIG)
    directory = stored(tmp_path, CONFIG)
    with pytest.raises(UserError, match=r"ensemble\.score.*is no score where classes are"):
        choose(directory, sweep_config(score="mse"))
    assert not directory.choice.exists()


def test_one_member_is_its_own_ensemble(tmp_path: Path) -> None:
    directory = stored(tmp_path, QUICK, [candidate("A", 1, 5)])
    choose(directory, QUICK)
    result = measure(directory, QUICK)
    assert [each["weight"] for each in result["members"]] == [1.0]
    assert result["gains"]["over_best_single"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert "one candidate only" in result["nested"]["why"]
    assert result["ablation"] == []


def test_a_soup_is_compared_and_its_failure_costs_nothing(tmp_path: Path) -> None:
    config = sweep_config(combine="average")
    config.jobs.predict = "made_predictions.labels_of"
    seen: list[tuple[str, float]] = []

    def soup(directory: SweepDirectory, config: SweepConfig, scored: Any, predict: Any) -> dict[str, Any]:
        seen.extend((each.trial_id, value) for each, value in scored)
        best, value = scored[0]
        for split in ("validation", "test"):
            given = MadeUp()(best.config, best.checkpoint, split)
            write_predictions(directory, "soup", [(best, given)], split)
        return {"description": {"trial_id": best.trial_id}, "barrier": 0.1, "validation": value, "note": "n"}

    def broken(*arguments: Any) -> dict[str, Any]:
        raise RuntimeError("no such layer")

    directory = stored(tmp_path / "a", config)
    choice = choose(directory, config, soup=soup)
    assert len(seen) == 8
    assert choice["soup"] == {"trial_id": "final-A-1", "barrier": 0.1, "note": "n"}
    assert choice["validation"]["soup"] == seen[0][1]
    assert "soup" in measure(directory, config)["test"]
    choice = choose(stored(tmp_path / "b", config), config, soup=broken)
    assert choice["soup"] is None
    assert choice["skipped"] == [{"checkpoint": "soup", "why": "RuntimeError: no such layer"}]


def test_the_teacher_is_the_calibrated_ensemble_on_training_data(tmp_path: Path) -> None:
    config, predict = sweep_config(combine="average", max_members=3), MadeUp()
    directory = stored(tmp_path, config)
    choice = choose(directory, config)
    teach(directory, config, predict)
    table = pq.ParquetFile(directory.teacher).read()
    assert table.column("sample_id").to_pylist() == list(range(90))
    found = np.array(table.column("probabilities").to_pylist(), np.float32)
    each = [predict(DictConfig({}), Path(one["checkpoint"]), "train") for one in choice["members"]]
    mean = np.mean([one.probabilities for one in each], axis=0)
    heat = choice["temperature"]["ensemble"]
    assert heat != pytest.approx(1, abs=0.05)
    sure = mean ** (1 / heat)
    assert found == pytest.approx(sure / sure.sum(axis=1, keepdims=True), abs=1e-5)
    asked = len(predict.asked)
    teach(directory, config, predict)
    assert len(predict.asked) == asked
    directory.teacher.write_bytes(b"torn")
    teach(directory, config, predict)
    assert len(predict.asked) == asked + 3


def test_a_teacher_that_cannot_predict_names_the_checkpoint(tmp_path: Path) -> None:
    def predict(config: DictConfig, checkpoint: Path, split: str) -> Predictions:
        raise EOFError("torn")

    directory = stored(tmp_path, QUICK)
    choose(directory, QUICK)
    with pytest.raises(UserError, match=r"\.pt: this member .* \(EOFError: torn\)"):
        teach(directory, QUICK, predict)
    wrong: Callable[..., Predictions] = changed(MadeUp(), "/5.pt", ids=lambda given: given.ids + 1)
    with pytest.raises(UserError, match="samples are not those of the first"):
        teach(directory, QUICK, wrong)
    assert not directory.teacher.exists()


def test_combining_anew_keeps_what_was_and_counts_looks(tmp_path: Path) -> None:
    directory = stored(tmp_path, QUICK)
    with pytest.raises(UserError, match="not measured yet"):
        combine_anew(directory, QUICK)
    choose(directory, QUICK)
    first = measure(directory, QUICK)
    assert first["test_looks"] == 1
    assert measure(directory, QUICK) == first  # the same step again: no second look
    before = directory.ensemble_result.read_text()
    other = with_settings(QUICK, ["ensemble.combine=greedy", "ensemble.members=[seeds,checkpoints]"])
    shown = preview(directory, other)
    assert shown["combine"] == "greedy"
    assert directory.ensemble_result.read_text() == before
    second = combine_anew(directory, other)
    assert (second["test_looks"], second["combine"]) == (2, "greedy")
    assert second["asked"]["members"] == ["seeds", "checkpoints"]
    assert (directory.choice.parent / "ensemble-0001.json").read_text() == before
    assert combine_anew(directory, other)["test_looks"] == 2
    assert combine_anew(directory, QUICK)["test_looks"] == 2
    assert json.loads((directory.choice.parent / "choice-0002.json").read_text())["combine"] == "greedy"
    assert meaning(1).endswith("read once.")
    assert "2 choices" in meaning(2)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("ensemble.combin=greedy", "Did you mean 'ensemble.combine'"),
        ("final.top=3", "can't be changed after the sweep"),
        ("ensemble.student.enabled=true", "can't be changed after the sweep"),
        ("ensemble.combine=gredy", "Did you mean 'greedy'"),
        ("ensemble.max_members=0", "0 is too few; the least is 1"),
        ("ensemble.folds=1", "1 is too few; the least is 2"),
        ("ensemble.bags=many", r"ensemble\.bags"),
        ("ensemble.score=acuracy", "Did you mean 'accuracy'"),
        ("ensemble.members=[seed]", "Did you mean 'seeds'"),
    ],
)
def test_wrong_settings_are_refused(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        with_settings(CONFIG, [override])


def test_settings_are_changed_for_this_once() -> None:
    found = with_settings(CONFIG, ["ensemble.score=log_loss", "ensemble.bags=4"])
    assert (found.ensemble.score, found.ensemble.bags, found.ensemble.folds) == ("log_loss", 4, 3)
    assert CONFIG.ensemble.score is None


def test_an_ensemble_of_real_checkpoints(tmp_path: Path) -> None:
    from orchestrator.training import supervised

    root = Path(__file__).parent.parent
    directory, runs = SweepDirectory(tmp_path), dict[int, list[Candidate]]()

    class Trial:
        """Makes candidates of what is kept."""

        def __init__(self, config: DictConfig) -> None:
            self.config, self.checkpoint_dir = config, tmp_path / "final" / str(config.seed)
            self.checkpoint_dir.mkdir(parents=True)

        def report(self, step: int, metrics: dict[str, float]) -> None:
            pass

        def keep(self, path: Path, step: int, best: bool = False) -> None:
            seed, config = self.config.seed, self.config
            each = Candidate(
                trial_id=f"final-{seed}", setting_id="w16", seed=seed, step=step, checkpoint=path,
                config=config,
            )  # fmt: skip
            runs.setdefault(seed, []).append(each)

    for seed in range(2):
        config = OmegaConf.load(root / "jobs" / "classify.yaml").config
        config.dataset = OmegaConf.load(root / "datasets" / "digits.yaml")
        changes = {"model": {"width": 16}, "epochs": 6, "batch_size": 64, "optimizer": {"lr": 0.01}}
        config.merge_with({**changes, "seed": seed, "checkpoints": 2})
        assert isinstance(config, DictConfig)
        supervised.train(config, Trial(config))
    torn = runs[0][1].checkpoint
    torn.write_bytes(torn.read_bytes()[:200])
    sweep = sweep_config("val/accuracy", combine="greedy")
    for run in runs.values():
        predict_run(directory, sweep, run, supervised.predict)
    choose(directory, sweep)
    result = measure(directory, sweep)
    assert [each["checkpoint"] for each in result["skipped"]] == [str(torn)]
    assert len({each["seed"] for each in result["members"]}) > 1
    assert result["test"]["ensemble"] > result["test"]["average_member"] > 0.75
    assert result["test_samples"] > 350
