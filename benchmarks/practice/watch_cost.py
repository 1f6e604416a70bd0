"""What a watch costs: the same training with and without, a small network on a CPU, which is the hard case.

python benchmarks/practice/watch_cost.py [--repeats 15]

Both trainings go on side by side, an epoch of one and then the same epoch of the other. Of each epoch the
median over the repeats counts, so that what else runs on the machine does not; the figure is the ratio of
their sums.
"""

from __future__ import annotations

import statistics
import time

import click
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

from orchestrator.diagnosis.watch import Watch

EPOCHS, BATCH = 10, 32
OPTIMIZERS = {
    "adam": lambda weights: torch.optim.Adam(weights, lr=1e-3),
    "sgd": lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9),
}


class Training:
    """One training, an epoch at a time."""

    def __init__(self, optimizer: str, width: int, watched: bool) -> None:
        inputs, labels = load_digits(return_X_y=True)
        self.inputs = torch.tensor(inputs / 16, dtype=torch.float32)
        self.labels = torch.tensor(labels)
        torch.manual_seed(0)
        self.model = nn.Sequential(
            nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
        )
        self.optimizer = OPTIMIZERS[optimizer](self.model.parameters())
        self.watch = Watch(self.model, self.optimizer) if watched else None

    def epoch(self) -> float:
        """Train for one, and return the processor seconds that it took."""
        began = time.process_time()
        order = torch.randperm(len(self.labels), generator=torch.Generator().manual_seed(1))
        total = torch.zeros(())
        for batch in order.split(BATCH):
            inputs = self.inputs[batch]
            loss = cross_entropy(self.model(inputs), self.labels[batch])
            if self.watch is not None:
                # As the built-in loop has it.
                self.watch.loss(loss, inputs)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total += loss.detach()
        metrics = {"train/loss": total.item() / len(order) * BATCH}
        if self.watch is not None:
            self.watch.epoch({**metrics, "val/loss": metrics["train/loss"]})
        return time.process_time() - began

    def close(self) -> float:
        """End the watch; return the seconds that it took."""
        began = time.process_time()
        if self.watch is not None:
            self.watch.close()
        return time.process_time() - began


def ratio(optimizer: str, width: int, repeats: int) -> tuple[float, float]:
    """Return the time with a watch over that without, and the seconds of an update without."""
    times: dict[bool, list[list[float]]] = {False: [], True: []}
    for repeat in range(repeats):
        pair = {watched: Training(optimizer, width, watched) for watched in (False, True)}
        spent: dict[bool, list[float]] = {False: [], True: []}
        for epoch in range(EPOCHS):
            order = (True, False) if (repeat + epoch) % 2 else (False, True)
            for watched in order:
                spent[watched].append(pair[watched].epoch())
        for watched in (False, True):
            times[watched].append([*spent[watched], pair[watched].close()])
    without, with_it = (sum(statistics.median(e) for e in zip(*times[w], strict=True)) for w in (False, True))
    return with_it / without, without / EPOCHS / (1797 // BATCH + 1)


@click.command()
@click.option("--repeats", default=15, show_default=True)
def main(repeats: int) -> None:
    """Print the cost of a watch."""
    torch.set_num_threads(1)
    ratio("adam", 32, 1)
    for optimizer in OPTIMIZERS:
        for width in (32, 128):
            found, update = ratio(optimizer, width, repeats)
            click.echo(f"{optimizer}, width {width}: {found - 1:+.1%} of {update * 1e6:.0f} µs an update")


if __name__ == "__main__":
    main()
