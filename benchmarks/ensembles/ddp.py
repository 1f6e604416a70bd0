"""How long an epoch takes in one and two processes, on the cores of one machine.

    python benchmarks/ensembles/ddp.py [--samples 2000] [--epochs 4] [--repeats 3]

Trains the built-in cnn on generated characters (28x28) with one global batch of 256, in one process with one
and with two threads, and in two processes with one thread each, through gloo. The layouts take turns; the
time of an epoch is the least of all, for others may use the machine.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from orchestrator.training import supervised

ROOT = Path(__file__).parent.parent.parent
# Processes, and threads of each.
LAYOUTS = ((1, 1), (1, 2), (2, 1))
MODELS: dict[str, dict[str, Any]] = {
    "cnn, 16 channels": {"name": "cnn", "width": 16},
    "cnn, 16 channels, batch norm": {"name": "cnn", "width": 16, "batch_norm": True},
}


class Timed:
    """A trial that remembers when its epochs were over."""

    def __init__(self, folder: Path) -> None:
        self.checkpoint_dir = folder
        self.times: list[float] = []

    def report(self, step: int, metrics: dict[str, float]) -> None:
        self.times.append(time.perf_counter())

    def keep(self, path: Path, step: int, best: bool = False) -> None:
        """Keep no checkpoint."""


def train(rank: int, layout: tuple[int, int], port: int, config: dict[str, Any], seconds: Any) -> None:
    """Train as one process; process 0 gives the least time of an epoch, the first one apart."""
    count, threads = layout
    torch.set_num_threads(threads)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with tempfile.TemporaryDirectory() as folder:
        trial = Timed(Path(folder))
        supervised.train(config, trial)
    if rank == 0:
        seconds.put(min(after - before for before, after in zip(trial.times, trial.times[1:], strict=False)))


def timed(layout: tuple[int, int], config: dict[str, Any]) -> float:
    """Return the least seconds of an epoch in a layout."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["orchestrator.training.supervised", "orchestrator.data.glyphs"])
    seconds = context.SimpleQueue()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    members = [
        context.Process(target=train, args=(rank, layout, port, config, seconds)) for rank in range(layout[0])
    ]
    for each in members:
        each.start()
    for each in members:
        each.join()
    return float(seconds.get())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    data = yaml.safe_load((ROOT / "datasets" / "glyphs.yaml").read_text())
    data |= {"samples": asked.samples, "num_classes": 10}
    rest = {"dataset": data, "batch_size": 256, "scaling": "none", "epochs": asked.epochs, "device": "cpu"}
    print("| model | " + " | ".join(f"{count} x {threads}" for count, threads in LAYOUTS) + " |")
    print("|---|" + "---|" * len(LAYOUTS))
    for name, model in MODELS.items():
        least = dict.fromkeys(LAYOUTS, float("inf"))
        for _ in range(asked.repeats):
            for layout in LAYOUTS:
                least[layout] = min(least[layout], timed(layout, {**rest, "model": model}))
        one = least[LAYOUTS[0]]
        cells = [f"{least[layout]:.2f} s ({one / least[layout]:.2f})" for layout in LAYOUTS]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    print(f"\n{os.cpu_count()} cores, {platform.machine()}, torch {torch.__version__}")


if __name__ == "__main__":
    main()
