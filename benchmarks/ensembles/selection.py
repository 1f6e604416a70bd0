"""Greedy selection from a large library: seconds and memory, against a straightforward implementation.

    python benchmarks/ensembles/selection.py [--candidates 500] [--samples 100000] [--repeats 3]

Makes up the predictions of 5 models x 5 settings x 5 seeds x 4 checkpoints (seeded; the nearer the kin, the
more alike their errors), stores them as one float32 array that is mapped, not read, and selects with 10 bags
of at most 20 members. The straightforward selection is what one writes first: float64 totals, and for each
addition a loop over the candidates of the bag with argmax or log. It has the library in memory, and is
timed on two additions of one bag, times the number of additions.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import scipy
from numpy.typing import NDArray

from orchestrator.ensemble.combine import fit
from orchestrator.ensemble.library import Arrays
from orchestrator.ensemble.scores import scored

BAGS, MEMBERS, TIMED = 10, 20, 2


def make(file: Path, candidates: int, samples: int, classes: int, seed: int) -> NDArray[np.int64]:
    """Write made-up probabilities (candidates, samples, classes) to a file, and return the right classes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, samples)
    every = np.arange(samples)
    right = rng.normal(4.0, 2.0, samples).astype(np.float32)  # how easy a sample is, for every model
    common = rng.standard_normal((samples, classes), dtype=np.float32)
    stored = np.lib.format.open_memmap(file, "w+", np.float32, (candidates, samples, classes))
    kin: dict[tuple[int, ...], NDArray[np.float32]] = {}
    for place in range(candidates):
        # Neighbours share their model (of 100), setting (of 20), and run (of 4 checkpoints).
        keys = [(level, place // size) for level, size in enumerate((100, 20, 4))]
        kin = {key: found for key, found in kin.items() if key in keys}
        logits = common.copy()
        for key in keys:
            if key not in kin:
                kin[key] = 0.6 * np.random.default_rng([seed, *key]).standard_normal(
                    (samples, classes), dtype=np.float32
                )
            logits += kin[key]
        logits += 0.3 * rng.standard_normal((samples, classes), dtype=np.float32)
        logits[every, labels] += right * np.float32(rng.uniform(0.85, 1.1))
        np.exp(logits, out=logits)
        stored[place] = logits / logits.sum(axis=1, keepdims=True)
    stored.flush()
    return labels


def straightforward(
    library: list[NDArray[np.float32]], labels: NDArray[np.int64], score: str, additions: int
) -> list[int]:
    """Return the first additions of a plain forward selection."""
    total = np.zeros(library[0].shape, dtype=np.float64)
    chosen: list[int] = []
    for count in range(1, additions + 1):
        merits = []
        for each in library:
            mean = (total + each) / count
            if score == "accuracy":
                merits.append(float((mean.argmax(axis=1) == labels).mean()))
            else:
                merits.append(float(np.log(np.maximum(mean[np.arange(len(labels)), labels], 1e-12)).mean()))
        chosen.append(int(np.argmax(merits)))
        total += library[chosen[-1]]
    return chosen


class Memory:
    """The largest anonymous resident memory of this process while it is open; mapped files do not count."""

    def __enter__(self) -> Memory:
        self.before = self.peak = _anonymous()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            self.peak = max(self.peak, _anonymous())


def _anonymous() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    return 0


def compare(stored: NDArray[np.float32], labels: NDArray[np.int64], score: str, repeats: int) -> str:
    """Return one row of the table."""
    library = Arrays(list(stored))
    seconds, cores, peaks = [], [], []
    for _ in range(repeats):
        start, used = time.perf_counter(), time.process_time()
        with Memory() as memory:
            found = fit("greedy", library, labels, score=score, max_members=MEMBERS, bags=BAGS, seed=0)
        seconds.append(time.perf_counter() - start)
        cores.append(time.process_time() - used)
        peaks.append((memory.peak - memory.before) / 1e9)
    bag = [np.array(each) for each in stored[::2]]
    start, used = time.perf_counter(), time.process_time()
    straightforward(bag, labels, score, TIMED)
    times = BAGS * MEMBERS / TIMED
    plain, plain_cores = (time.perf_counter() - start) * times, (time.process_time() - used) * times
    ours, ours_cores = statistics.median(seconds), statistics.median(cores)
    value = scored(score, found.apply(library), labels)
    best = (max if score == "accuracy" else min)(scored(score, each, labels) for each in stored)
    cells = [
        score,
        f"{ours:.1f} ({min(seconds):.1f} to {max(seconds):.1f})",
        f"{ours_cores:.1f}",
        f"{max(peaks):.2f}",
        f"{plain:.0f}",
        f"{plain_cores:.0f}",
        f"{plain / ours:.0f} ({plain_cores / ours_cores:.0f})",
        f"{best:.4f}",
        f"{value:.4f}",
        str(len(found.members)),
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Make the data, time both, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    for name, default in (("candidates", 500), ("samples", 100_000), ("classes", 10), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    shape = options.candidates, options.samples, options.classes
    print(f"{shape[0]} candidates x {shape[1]} samples x {shape[2]} classes, {BAGS} bags, {MEMBERS} members")
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, numpy {np.__version__}, scipy {scipy.__version__}"
    )
    heads = ["score", "s, median (range)", "CPU s", "GB beyond the data", "plain, s", "plain, CPU s"]
    heads += ["ratio (of CPU s)", "best single", "greedy", "members"]
    print(f"\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "library.npy"
        labels = make(file, *shape, seed=0)
        stored = np.load(file, mmap_mode="r")
        for score in ("accuracy", "log_loss"):
            print(compare(stored, labels, score, options.repeats), flush=True)


if __name__ == "__main__":
    main()
