"""Averages of weights: along a run, on the path between runs, and the soup that comes of them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig

from orchestrator.ensemble.averaging import (
    NoAverage,
    along_run,
    late_checkpoints,
    mixture,
    write_mixture,
)
from orchestrator.ensemble.members import AVERAGE, Candidate
from orchestrator.ensemble.soup import soup
from orchestrator.schema import JobConfig, SweepConfig
from orchestrator.training import supervised
from orchestrator.training.checkpoints import UnreadableCheckpoint, save
from orchestrator.training.weights import parameters_of, plain_names, read_weights, write_weights
from trained import FakeTrial, job, same_weights

SETUP = "orchestrator.training.supervised.setup"
WIDE: dict[str, Any] = {
    "model.width": 32, "model.batch_norm": True, "optimizer.name": "sgd", "optimizer.lr": 0.5, "epochs": 8,
    "checkpoints": 4, "batch_size": 32,
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def sweep(setup: str | None = SETUP) -> SweepConfig:
    return SweepConfig(name="made", jobs=JobConfig(_target_="a.b", setup=setup))


def trained(
    folder: Path, name: str = "one", seed: int = 0, dataset: str = "digits", **changes: Any
) -> list[Candidate]:
    """Train a network, and return what it kept."""
    config = job(dataset, **{**WIDE, **changes}, seed=seed)
    trial = FakeTrial(folder / name)
    supervised.train(config, trial)
    return [
        Candidate(
            trial_id=name, setting_id="s", seed=seed, step=step, config=config,
            checkpoint=trial.checkpoint_dir / file,
        )
        for file, step in sorted(trial.kept, key=lambda each: each[1])
    ]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> list[Candidate]:
    """A run whose rate is so high that its weights go round the optimum instead of into it."""
    torch.set_num_threads(1)
    return trained(tmp_path_factory.mktemp("run"))


def log_loss(config: DictConfig, path: Path, part: str = "validation") -> float:
    predicted = supervised.predict(config, path, part)
    right = predicted.probabilities[np.arange(len(predicted.labels)), predicted.labels]
    return float(-np.log(np.maximum(right, 1e-12)).mean())


def test_the_mean_of_late_weights_is_better_than_the_run_is_on_average(
    run: list[Candidate], tmp_path: Path
) -> None:
    average = along_run(run, sweep(), tmp_path)
    assert average is not None
    parts = [log_loss(run[0].config, Path(part)) for part in average.parts]
    assert average.kind == AVERAGE
    assert average.step == max(each.step for each in run)
    assert len(parts) >= 3
    assert log_loss(average.config, average.checkpoint) < np.mean(parts)


def test_batch_norms_need_statistics_of_their_own(run: list[Candidate], tmp_path: Path) -> None:
    parts = [each.checkpoint for each in late_checkpoints(run)]
    shares, last = [1 / len(parts)] * len(parts), read_weights(parts[-1])
    mixed = mixture((read_weights(path).state for path in parts), shares, last.state)
    stale = {name: last.state[name] if "running" in name else value for name, value in mixed.items()}
    write_weights(tmp_path / "stale.pt", last, stale)
    write_mixture(tmp_path / "measured.pt", parts, shares, sweep(), run[0].config)
    assert log_loss(run[0].config, tmp_path / "measured.pt") < log_loss(run[0].config, tmp_path / "stale.pt")
    measured = read_weights(tmp_path / "measured.pt").state
    seen = supervised.setup(run[0].config).inputs.flatten(1) @ mixed["1.weight"].T
    torch.testing.assert_close(measured["2.running_mean"], seen.mean(dim=0), rtol=0.01, atol=0.01)
    assert (stale["2.running_mean"] - seen.mean(dim=0)).abs().max() > 0.1


def test_the_same_checkpoints_give_the_same_bits(run: list[Candidate], tmp_path: Path) -> None:
    torch.manual_seed(5)
    one = along_run(run, sweep(), tmp_path / "one")
    torch.manual_seed(6)
    drawn = torch.random.get_rng_state()
    other = along_run(list(reversed(run)), sweep(), tmp_path / "other")
    assert torch.equal(drawn, torch.random.get_rng_state())
    assert one is not None and other is not None
    assert same_weights(one.checkpoint, other.checkpoint)
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["one.pt"]


def test_a_run_of_one_checkpoint_has_no_average(run: list[Candidate], tmp_path: Path) -> None:
    assert along_run(run[-1:], sweep(), tmp_path) is None
    assert along_run([], sweep(), tmp_path) is None
    assert along_run([run[-1], run[-1]], sweep(), tmp_path) is None  # the same one, offered twice
    assert list(tmp_path.iterdir()) == []


def copied(run: list[Candidate], folder: Path, name: str = "model.pt", change: Any = None) -> list[Candidate]:
    """Return candidates of the same weights in files of another form, or changed."""
    copies = []
    for each in run:
        path = folder / str(each.step) / name
        path.parent.mkdir(parents=True)
        content: Any = torch.load(each.checkpoint, weights_only=True)
        save(path, content if change is None else change(content, each.step))
        copies.append(replace(each, checkpoint=path))
    return copies


def test_what_can_not_be_read_is_left_out(run: list[Candidate], tmp_path: Path) -> None:
    copies = copied(run, tmp_path / "copies")
    late = late_checkpoints(copies)
    late[0].checkpoint.write_bytes(late[0].checkpoint.read_bytes()[:500])
    average = along_run(copies, sweep(), tmp_path / "averages")
    assert average is not None
    assert str(late[0].checkpoint) not in average.parts
    late[1].checkpoint.unlink()
    broken = read_weights(late[2].checkpoint)
    write_weights(
        late[2].checkpoint, broken, {name: value * math.nan for name, value in broken.state.items()}
    )
    assert along_run(copies[-3:], sweep(), tmp_path / "none") is None


def test_different_models_have_no_average(run: list[Candidate], tmp_path: Path) -> None:
    def narrower(content: Any, step: int) -> Any:
        if step == run[-1].step:
            content["model"] = {name: value.flatten()[:1] for name, value in content["model"].items()}
        return content

    with pytest.raises(NoAverage, match=r"different models: '.*' is \("):
        along_run(copied(run, tmp_path / "a", change=narrower), sweep(), tmp_path)

    def renamed(content: Any, step: int) -> Any:
        if step == run[-1].step:
            content["model"]["extra"] = torch.zeros(1)
        return content

    with pytest.raises(NoAverage, match="only one has 'extra'"):
        along_run(copied(run, tmp_path / "b", change=renamed), sweep(), tmp_path)


def test_statistics_need_a_setup(run: list[Candidate], tmp_path: Path) -> None:
    with pytest.raises(NoAverage, match=r"without jobs\.setup"):
        along_run(run, sweep(None), tmp_path)
    with pytest.raises(NoAverage, match="can't be measured: UserError"):
        along_run(run, sweep("orchestrator.no.such"), tmp_path)
    without = {
        name: value for name, value in read_weights(run[0].checkpoint).state.items() if "running" not in name
    }
    for each in run:
        save(tmp_path / f"{each.step}.pt", {"model": without})
    plain = [replace(each, checkpoint=tmp_path / f"{each.step}.pt") for each in run]
    assert along_run(plain, sweep(None), tmp_path / "averages") is not None


@pytest.mark.parametrize("form", ["flat", "state_dict", "net"])
def test_a_users_own_files_are_read_and_written_in_their_form(
    form: str, run: list[Candidate], tmp_path: Path
) -> None:
    def change(content: Any, step: int) -> Any:
        inner = {f"module.{name}": value for name, value in content["model"].items()}
        return inner if form == "flat" else {form: inner, "step": step, "optimizer": {"lr": 0.1}}

    average = along_run(copied(run, tmp_path / "copies", change=change), sweep(), tmp_path / "averages")
    assert average is not None
    content = torch.load(average.checkpoint, weights_only=True)
    if form != "flat":
        assert content["step"] == run[-1].step
        assert content["optimizer"] == {"lr": 0.1}
    ours = along_run(run, sweep(), tmp_path / "ours")
    assert ours is not None
    expected = read_weights(ours.checkpoint).state
    found = plain_names(content if form == "flat" else content[form])
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_files_without_weights_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "none.pt", {"epoch": 3})
    save(tmp_path / "two.pt", {"one": {"a": torch.zeros(1)}, "other": {"a": torch.zeros(1)}})
    for name in ("none", "two", "missing"):
        with pytest.raises(UnreadableCheckpoint, match=f"{name}.pt"):
            read_weights(tmp_path / f"{name}.pt")


def test_means_are_of_numbers_and_counts_stay_counts() -> None:
    states = [
        {"weight": torch.tensor([1.0, 3.0], dtype=torch.bfloat16), "seen": torch.tensor(5)},
        {"weight": torch.tensor([2.0, 5.0], dtype=torch.bfloat16), "seen": torch.tensor(9)},
    ]
    mixed = mixture(states, [0.25, 0.75], states[-1])
    assert mixed["weight"].tolist() == [1.75, 4.5]
    assert mixed["weight"].dtype == torch.bfloat16
    assert mixed["seen"].item() == 9
    assert parameters_of(mixed) == 2


def test_networks_of_one_run_lie_in_one_basin_and_those_of_two_seeds_do_not(
    run: list[Candidate], tmp_path: Path
) -> None:
    other = trained(tmp_path, "two", seed=1)
    pairs = [(each, -log_loss(each.config, each.checkpoint)) for each in (run[-1], other[-1])]
    apart = soup(
        [(each, -value) for each, value in pairs], sweep(), supervised.predict, score="log_loss",
        path=tmp_path / "soup.pt",
    )  # fmt: skip
    assert apart.candidate is None
    (barrier,) = apart.barriers
    assert not barrier.low
    assert barrier.height > 0.3
    assert "On 1 of 1 straight paths" in apart.note
    assert not (tmp_path / "soup.pt").exists()


def test_runs_that_begin_from_one_checkpoint_make_a_soup(run: list[Candidate], tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "finetune.checkpoint": str(run[-1].checkpoint), "optimizer.lr": 0.2, "epochs": 3, "checkpoints": 1,
    }  # fmt: skip
    tuned = [trained(tmp_path, f"tuned-{seed}", seed, **changes)[-1] for seed in (1, 2, 3)]
    scores = [log_loss(each.config, each.checkpoint) for each in tuned]
    made = soup(
        list(zip(tuned, scores, strict=True)), sweep(), supervised.predict, score="log_loss",
        path=tmp_path / "soup.pt",
    )  # fmt: skip
    assert all(each.low for each in made.barriers)
    assert made.candidate is not None
    assert len(made.candidate.parts) >= 2
    assert made.score < min(scores)
    assert made.score == pytest.approx(log_loss(run[0].config, tmp_path / "soup.pt"))
    assert "On 0 of 2 straight paths" in made.note


def test_networks_of_another_build_are_no_part_of_a_soup(run: list[Candidate], tmp_path: Path) -> None:
    config = job(**{**WIDE, "model.width": 8, "epochs": 1}, seed=1)
    trial = FakeTrial(tmp_path / "narrow")
    supervised.train(config, trial)
    narrow = replace(
        run[0], trial_id="narrow", config=config, checkpoint=trial.checkpoint_dir / trial.kept[-1][0]
    )
    made = soup(
        [(run[-1], 0.9), (narrow, 0.8)], sweep(), supervised.predict, score="accuracy", path=tmp_path / "s.pt"
    )
    assert made.candidate is None
    assert "Runs were not mixed: the weights are of different models" in made.note


def test_a_cnns_late_weights_are_averaged_too(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "dataset.samples": 2000, "dataset.num_classes": 10, "dataset.classes": 3, "model.name": "cnn",
        "model.width": 8, "optimizer.name": "adam", "optimizer.lr": 0.03,
    }  # fmt: skip
    kept = trained(tmp_path, dataset="glyphs", **changes)
    average = along_run(kept, sweep(), tmp_path / "averages")
    assert average is not None
    parts = [log_loss(average.config, Path(part)) for part in average.parts]
    assert log_loss(average.config, average.checkpoint) < np.mean(parts)


def test_the_average_along_a_run_stands_in_for_a_soup(run: list[Candidate], tmp_path: Path) -> None:
    average = along_run(run, sweep(), tmp_path)
    assert average is not None
    made = soup(
        [(run[-1], 0.9), (average, 0.8)],
        sweep(),
        supervised.predict,
        score="accuracy",
        path=tmp_path / "s.pt",
    )
    assert made.candidate == average
    assert made.score == 0.8
    assert "one run alone" in made.note
