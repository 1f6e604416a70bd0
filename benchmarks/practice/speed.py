"""The built-in loop against a plain hand-written one, and against Lightning where it is installed.

python benchmarks/practice/speed.py [--repeats 15] [--epochs 4]

All train the same model on the same samples with the same optimizer, one thread, and measure validation loss
and accuracy after each epoch, as one does. They take turns, and the figure is the ratio of the medians of
processor time. `plain` is what one writes by hand, with loss and accuracy of the training part; `bare` is the
same without these two; `with watch` is the built-in loop as a sweep runs it, with the diagnosis. For
Lightning: python -m venv FOLDER; FOLDER/bin/pip install -e . lightning; FOLDER/bin/python this file.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import torch
from job import Alone, dataset
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from orchestrator.data.dataset import open_dataset
from orchestrator.diagnosis.watch import Watch
from orchestrator.training.build import Fold, build_run, load_fold
from orchestrator.training.loop import fit
from orchestrator.training.settings import JobSettings, ModelSettings
from orchestrator.training.training import Training

CPU = torch.device("cpu")
Loop = Callable[["Case"], Callable[[], object]]


@dataclass(frozen=True, slots=True)
class Case:
    """What is trained.

    Attributes:
        fold: the samples.
        settings: model, optimizer and batch size.
    """

    fold: Fold
    settings: JobSettings


class Watched(Alone):
    """A trial with the diagnosis on, as in a sweep."""

    def watch(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Watch:
        return Watch(model, optimizer)


def cases(epochs: int) -> dict[str, Case]:
    digits = load_fold(open_dataset(dataset("digits")), 0, CPU)
    glyphs = load_fold(open_dataset(dataset("glyphs", samples=3000, num_classes=10, classes=None)), 0, CPU)
    mlp = JobSettings(epochs=epochs, batch_size=32, save_seconds=math.inf)
    cnn = replace(mlp, model=ModelSettings(name="cnn", width=8))
    return {
        "mlp on digits, batch 32": Case(digits, mlp),
        "mlp on digits, batch 128": Case(digits, replace(mlp, batch_size=128)),
        "mlp on glyphs, batch 32": Case(glyphs, mlp),
        "cnn on digits, batch 32": Case(digits, cnn),
        "cnn on glyphs, batch 64": Case(glyphs, replace(cnn, batch_size=64)),
    }


def built_in(case: Case, trial: type[Alone] = Alone) -> Callable[[], object]:
    run = build_run(case.settings, case.fold, CPU)
    training = Training(
        runs=[run],
        build=lambda _: run,
        settings=case.settings,
        task=case.fold.data.task,
        trial=trial(Path("no-checkpoints")),
        fingerprint="",
    )
    return lambda: fit(training)


def with_watch(case: Case) -> Callable[[], object]:
    return built_in(case, Watched)


def plain(case: Case) -> Callable[[], object]:
    """Return a loop as one writes it by hand."""
    run = build_run(case.settings, case.fold, CPU)
    model, size = run.model, run.size
    optimizer = torch.optim.Adam(model.parameters(), lr=case.settings.optimizer.lr)
    inputs, labels = case.fold.train.inputs, case.fold.train.targets
    held_out, goals = case.fold.validation.inputs, case.fold.validation.targets
    assert isinstance(inputs, Tensor) and isinstance(held_out, Tensor)

    def train() -> None:
        for _ in range(case.settings.epochs):
            model.train()
            total, right = 0.0, 0
            for batch in torch.randperm(len(labels)).split(size):
                x, y = inputs[batch], labels[batch]
                outputs = model(x)
                loss = cross_entropy(outputs, y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.item() * len(batch)
                right += int((outputs.argmax(1) == y).sum().item())
            model.eval()
            with torch.no_grad():
                outputs = torch.cat([model(piece) for piece in held_out.split(256)])
                cross_entropy(outputs, goals).item(), (outputs.argmax(1) == goals).float().mean().item()

    return train


def bare(case: Case) -> Callable[[], object]:
    """Return the same without a training loss or accuracy: nothing can be left out any more."""
    run = build_run(case.settings, case.fold, CPU)
    model, size = run.model, run.size
    optimizer = torch.optim.Adam(model.parameters(), lr=case.settings.optimizer.lr)
    inputs, labels = case.fold.train.inputs, case.fold.train.targets
    held_out, goals = case.fold.validation.inputs, case.fold.validation.targets
    assert isinstance(inputs, Tensor) and isinstance(held_out, Tensor)

    def train() -> None:
        for _ in range(case.settings.epochs):
            model.train()
            for batch in torch.randperm(len(labels)).split(size):
                loss = cross_entropy(model(inputs[batch]), labels[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            model.eval()
            with torch.no_grad():
                outputs = torch.cat([model(piece) for piece in held_out.split(256)])
                cross_entropy(outputs, goals).item(), (outputs.argmax(1) == goals).float().mean().item()

    return train


def lightning(case: Case) -> Callable[[], object]:
    """Return Lightning's loop with all switched off that it can do without."""
    import lightning.pytorch as pl
    from torch.utils.data import DataLoader, TensorDataset

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    run = build_run(case.settings, case.fold, CPU)

    class Module(pl.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = run.model

        def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
            outputs = self.model(batch[0])
            loss = cross_entropy(outputs, batch[1])
            right = (outputs.argmax(1) == batch[1]).float().mean()
            self.log_dict({"loss": loss, "accuracy": right}, on_step=False, on_epoch=True)
            return loss

        def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
            outputs = self.model(batch[0])
            right = (outputs.argmax(1) == batch[1]).float().mean()
            self.log_dict({"val_loss": cross_entropy(outputs, batch[1]), "val_accuracy": right})

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=case.settings.optimizer.lr)

    parts = [TensorDataset(each.inputs, each.targets) for each in (case.fold.train, case.fold.validation)]
    train = DataLoader(parts[0], batch_size=run.size, shuffle=True)
    validation = DataLoader(parts[1], batch_size=256)
    trainer = pl.Trainer(
        max_epochs=case.settings.epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    module = Module()
    return lambda: trainer.fit(module, train, validation)


def measured(
    case: Case, loops: dict[str, Callable[[Case], Callable[[], object]]], repeats: int
) -> dict[str, float]:
    """Return each loop's median of processor seconds; they take turns, each time in another order."""
    spent: dict[str, list[float]] = {name: [] for name in loops}
    names = list(loops)
    for repeat in range(repeats + 1):
        for name in names[repeat % len(names) :] + names[: repeat % len(names)]:
            train = loops[name](case)
            began = time.process_time()
            train()
            if repeat:  # the first is to warm up
                spent[name].append(time.process_time() - began)
    return {name: statistics.median(times) for name, times in spent.items()}


@click.command()
@click.option("--repeats", default=15, show_default=True)
@click.option("--epochs", default=4, show_default=True)
def main(repeats: int, epochs: int) -> None:
    """Print the ratios."""
    torch.set_num_threads(1)
    loops: dict[str, Any] = {"plain": plain, "bare": bare, "built-in": built_in, "with watch": with_watch}
    if importlib.util.find_spec("lightning"):
        loops["lightning"] = lightning
    heads = " | ".join(f"{name} / plain" for name in loops if name != "plain")
    click.echo(f"| case | plain, µs an update | {heads} |")
    click.echo("| --- " * (len(loops) + 1) + "|")
    for name, case in cases(epochs).items():
        times = measured(case, loops, repeats)
        size = case.settings.batch_size
        assert isinstance(size, int)
        updates = epochs * -(-len(case.fold.train) // size)
        ratios = " | ".join(f"{times[each] / times['plain']:.2f}" for each in loops if each != "plain")
        click.echo(f"| {name} | {times['plain'] / updates * 1e6:.0f} | {ratios} |")


if __name__ == "__main__":
    main()
