"""A watch on any loop, the trial's own `watch` and `subset`, and what they leave in the records."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from commands import orchestrate, write_user_sweep
from orchestrator import UserError, load_results
from orchestrator.diagnosis import detail
from orchestrator.diagnosis.losses import MOST_BLOCKS, Losses
from orchestrator.diagnosis.watch import Watch, watch
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.worker.trial import Trial, always


def made(tmp_path: Path, **changes: Any) -> tuple[Trial, list[dict[str, Any]]]:
    """A trial, and the lines that it sends."""
    lines: list[dict[str, Any]] = []
    given: dict[str, Any] = {"id": "a", "stage": "s", "params": {}, "seed": 0, "checkpoint_dir": tmp_path}
    return Trial(**given | {"send": lines.append, "goes_on": always} | changes), lines


def network(last: int = 5) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(16, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, last)
    )


def data(samples: int = 160) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(samples) % 5
    return torch.randn(5, 16, generator=draw)[labels] + torch.randn(samples, 16, generator=draw) / 2, labels


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, seen: Watch | None, epochs: int = 3, told: bool = True
) -> None:
    inputs, labels = data()
    for _ in range(epochs):
        total = 0.0
        for batch in torch.randperm(len(inputs)).split(16):  # type: ignore[no-untyped-call]
            loss = cross_entropy(model(inputs[batch]), labels[batch])
            if seen is not None:
                seen.loss(loss)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.item()
        if seen is not None and told:
            seen.epoch({"train/loss": total / 10, "val/loss": total / 10})


@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop"])
def test_a_training_has_the_same_bits_with_and_without(name: str) -> None:
    ends = []
    for watched in (False, True):
        model = network()
        optimizer = getattr(torch.optim, name)(model.parameters(), lr=0.01)
        seen = watch(model, optimizer) if watched else None
        train(model, optimizer, seen, epochs=21)
        if seen is not None:
            assert seen.ratios and seen.flips and seen.on
            assert [update for update, _ in seen.ratios] == [1, 4, 16, 64]
        ends.append((model.state_dict(), torch.rand(3)))
    (plain, drawn), (with_watch, drawn_too) = ends
    assert all(torch.equal(plain[key], with_watch[key]) for key in plain) and torch.equal(drawn, drawn_too)


def test_nothing_is_left_behind_when_it_is_closed() -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    seen = watch(model, optimizer)
    train(model, optimizer, seen, epochs=1)
    assert seen.close() == seen.close()
    assert not optimizer._optimizer_step_pre_hooks and not optimizer._optimizer_step_post_hooks
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in model.modules())
    train(model, optimizer, seen, epochs=1)


def test_what_fails_in_a_watch_ends_no_training(capfd: pytest.CaptureFixture[str]) -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    seen = watch(model, optimizer)
    seen._probe.after_step = None  # type: ignore[assignment,method-assign]
    train(model, optimizer, seen)
    assert not seen.on and seen.close() == () and "the diagnosis is off: TypeError" in capfd.readouterr().err


def test_a_loss_that_is_no_number_is_said() -> None:
    model = network()
    seen = watch(model, torch.optim.Adam(model.parameters()))
    with pytest.raises(UserError, match=r"shape \(16,\).*Take its mean"):
        seen.loss(torch.zeros(16))


def test_without_losses_or_updates_there_is_little_to_say() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 1e-9)
    assert watch(model, optimizer).close() == ()
    seen = watch(model, optimizer)
    inputs, labels = data()
    for _ in range(70):
        cross_entropy(model(inputs), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert [one.code for one in seen.close()] == ["updates_too_small"]


def test_another_optimizer_is_followed() -> None:
    model = network()
    first, second = torch.optim.Adam(model.parameters()), torch.optim.SGD(model.parameters(), 0.1)
    seen = watch(model, first)
    train(model, first, seen, epochs=1)
    seen.follow(second)
    train(model, second, seen, epochs=1)
    assert seen.updates == 20 and not first._optimizer_step_post_hooks


def test_a_training_that_is_taken_up_again_is_not_judged_by_its_first_loss() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.03, momentum=0.9)
    train(model, optimizer, None, epochs=30)
    optimizer.param_groups[0]["lr"] = 1e-4
    for fresh in (False, True):
        again = optimizer if not fresh else torch.optim.SGD(model.parameters(), 1e-4, momentum=0.9)
        seen = watch(model, again)
        train(model, again, seen, epochs=6)
        # At its end the loss hardly moves; with an optimizer that begins, that is a rate too small.
        assert {one.code for one in seen.close()} == ({"lr_too_small"} if fresh else set())


def test_models_that_are_called_by_keywords_are_watched() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, *, pixels: Tensor) -> Tensor:
            return self.inner(pixels)  # type: ignore[no-any-return]

    model = Named()
    seen = watch(model, torch.optim.Adam(model.parameters()))
    inputs, labels = data()
    inputs[3] = math.nan
    seen.loss(cross_entropy(model(pixels=inputs), labels))
    (found,) = seen.close()
    assert found.code == "nan_input" and "input 'pixels'" in found.evidence and "samples 3" in found.evidence


def test_inputs_that_the_loop_gives_stand_for_the_models_call() -> None:
    model = network()
    seen = watch(model, torch.optim.Adam(model.parameters()))
    inputs, labels = data()
    seen.loss(cross_entropy(model(inputs), labels), inputs)
    assert not model._forward_pre_hooks
    inputs[7] = math.nan
    seen.loss(cross_entropy(model(inputs), labels), inputs)
    (found,) = seen.close()
    assert found.code == "nan_input" and "samples 7" in found.evidence and found.step == 2


def test_losses_take_little_space_however_many() -> None:
    losses = Losses()
    for number in range(20_000):
        losses.add(float(number))
    assert len(losses._means) < MOST_BLOCKS and losses.count == 20_000 and losses.broken == 0
    assert np.allclose(losses.parts(4), [2500, 7500, 12500, 17500], rtol=0.1)
    losses.add(math.inf)
    assert losses.broken == 20_001 and losses.last == 19_999


def test_a_trial_sends_what_was_found_and_judges_reports_where_epochs_are_not_told(tmp_path: Path) -> None:
    trial, lines = made(tmp_path)
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    seen = trial.watch(model, optimizer)
    for epoch in range(1, 8):
        train(model, optimizer, seen, epochs=1, told=False)
        trial.report(epoch, {"train_loss": 1 / epoch, "val_loss": 1.0, "train_acc": 1.0, "val_acc": 0.5})
    trial.end()
    found = [line for line in lines if line["kind"] == "finding"]
    assert [line["code"] for line in found] == ["overfitting"] and found[0]["trial"] == "a"
    assert "1 on training data and 0.5 on validation" in found[0]["evidence"] and found[0]["step"] == 70
    assert not (tmp_path / detail.NAME).exists() and json.dumps(found)


def test_a_final_run_is_described_in_detail(tmp_path: Path) -> None:
    trial, _ = made(tmp_path, kind="final")
    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    seen = trial.watch(model, optimizer)
    train(model, optimizer, seen)
    detail.write(tmp_path, predictions={"accuracy": np.float64(0.5), "bad": math.nan})
    seen.close()
    found = detail.read(tmp_path / detail.NAME)
    assert found["predictions"] == {"accuracy": 0.5, "bad": None} and found["findings"] == []
    activations = found["layers"]["activations"]["2"]
    assert sum(activations["counts"]) == 16 * 16 and activations["low"] == 0
    assert sum(found["layers"]["gradients"]["0.weight"]["counts"]) == 16 * 16
    assert len(found["weights"]["pictures"]) == 16


def dataset(samples: int = 500) -> TensorDataset:
    return TensorDataset(torch.arange(samples).float(), torch.arange(samples) % 10)


def test_a_subset_is_stratified_and_contains_that_of_a_smaller_stage(tmp_path: Path) -> None:
    parts = []
    for scale in ({"data": 0.1}, {"data": 0.4}, {"data": 200}, {}):
        trial, _ = made(tmp_path, scale=scale)
        part = trial.subset(dataset())
        counts = np.bincount([int(part[number][1]) for number in range(len(part))])
        assert np.ptp(counts) <= 1
        parts.append(set(part.indices))
    assert [len(part) for part in parts] == [50, 200, 200, 500]
    assert parts[0] < parts[1] == parts[2] < parts[3]
    other = made(tmp_path, scale={"data": 0.1})[0].subset(dataset(), seed=1)
    assert set(other.indices) != parts[0]


def test_a_subset_takes_a_stages_classes(tmp_path: Path) -> None:
    trial, _ = made(tmp_path, scale={"data": 0.5, "classes": 3, "class_rule": "first"})
    part = trial.subset(dataset(), labels=np.arange(500) % 10)
    assert {int(part[number][1]) for number in range(len(part))} == {0, 1, 2} and len(part) == 75
    trial, _ = made(tmp_path, scale={"data": 400, "classes": [4, 7]})
    assert len(trial.subset(dataset())) == 100
    trial, _ = made(tmp_path, scale={"data": 0.2, "classes": 2, "class_rule": "confusable"})
    assert len({int(dataset()[number][1]) for number in trial.subset(dataset()).indices}) == 2


def test_a_subset_of_values_is_spread_over_their_range(tmp_path: Path) -> None:
    trial, _ = made(tmp_path, scale={"data": 0.1})
    values = np.linspace(0, 1, 500) ** 3
    taken = np.sort(values[trial.subset(dataset(), labels=values).indices])
    assert len(taken) == 50 and abs(np.median(taken) - np.median(values)) < 0.05


@pytest.mark.parametrize(
    ("labels", "scale", "message"),
    [
        ([0, 1], {}, "2 labels for 500 samples"),
        (["a"] * 500, {}, "neither classes nor values"),
        ([math.nan] * 500, {}, "500 labels are not finite"),
        ([-1] * 500, {}, "below 0"),
        ([0.5] * 500, {"classes": 2}, "classes are not known"),
        ([0, 1] * 250, {"classes": 3}, "3 classes are asked for, and there are 2"),
    ],
)
def test_labels_that_do_not_fit_are_said(tmp_path: Path, labels: Any, scale: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        made(tmp_path, scale=scale)[0].subset(dataset(), labels)


def test_a_dataset_without_a_length_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no length"):
        made(tmp_path)[0].subset(iter([1]))


OWN = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

def train(config, trial):
    torch.manual_seed(0)
    labels = torch.arange(400) % 4
    data = trial.subset(TensorDataset(nn.functional.one_hot(labels, 8).float(), labels))
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    optimizer = torch.optim.SGD(model.parameters(), config.lr)
    watch = trial.watch(model, optimizer)
    for epoch in range(10):
        for inputs, targets in DataLoader(data, batch_size=10, shuffle=True):
            loss = nn.functional.cross_entropy(model(inputs), targets)
            watch.loss(loss)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return {"score": float(len(data))}
"""


SWEEP = """
name: own
metric: {name: score}
space: {lr: "choice(1.0e-6, 0.3)"}
stages: {only: {trials: 2, sampler: grid, data: 0.5}}
final: {top: 1, seeds: 1}
jobs: {_target_: my_train.train, config: {lr: 0.1}, scale: {data: null}}
slurm: {trials_at_once: 2}
"""


def test_a_users_own_loop_has_its_findings_in_the_results(tmp_path: Path) -> None:
    write_user_sweep(tmp_path, OWN, SWEEP)
    orchestrate("run", "sweep.yaml", cwd=tmp_path)
    results = load_results(tmp_path / "sweeps" / "own")
    rows = results.at("only").sort_values("param.lr")
    assert set(rows["state"]) == {"completed"}, rows["error"].tolist()
    assert rows["diagnosis"].tolist() == ["lr_too_small", ""]
    assert rows["diagnosis_evidence"].iloc[0].startswith("lr_too_small at 200: the loss falls slowly")
    # The stage's part of the user's dataset, and all of it in the final run, which is described in detail.
    assert rows["objective"].tolist() == [200, 200] and results.at("final")["objective"].tolist() == [400]
    final = results.at("final")["trial_id"].iloc[0]
    folder = SweepDirectory(results.path).phase("final", "final").checkpoints(final)
    assert "activations" in detail.read(folder / detail.NAME)["layers"]
