"""Metrics in TensorBoard's event files, read with the package `tensorboard`."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.errors import UserError
from orchestrator.programs.patterns import Row

PACKAGE = "tensorboard"


@dataclass(slots=True)
class Events:
    """The scalars of the event files in a folder and those below it: each look gives the steps that are new.

    A scalar of a folder below is called as TensorBoard shows it: FOLDER/NAME.

    Attributes:
        folder: in which the program writes them, which need not be there yet.
    """

    folder: Path
    _readers: dict[Path, Any] = field(default_factory=dict)
    _seen: dict[tuple[Path, str], int] = field(default_factory=dict)

    def look(self) -> Iterator[Row]:
        """Give the scalars since the last look, step by step.

        Raises:
            UserError: tensorboard is not installed.
        """
        steps: dict[int, dict[str, float]] = {}
        for run in sorted({path.parent for path in self.folder.glob("**/*tfevents*")}):
            prefix = "" if run == self.folder else f"{run.relative_to(self.folder).as_posix()}/"
            for tag, step, value in self._new(run):
                steps.setdefault(step, {})[prefix + tag] = value
        yield from sorted(steps.items())

    def rest(self) -> Iterator[Row]:
        """Give what is left when the program has ended."""
        yield from self.look()

    def _new(self, run: Path) -> Iterator[tuple[str, int, float]]:
        reader = self._readers.setdefault(run, self._readers.get(run) or _reader(run))
        reader.Reload()
        tags = reader.Tags()
        for tag in tags["scalars"]:
            yield from self._unseen(run, tag, [(each.step, each.value) for each in reader.Scalars(tag)])
        for tag in tags["tensors"]:
            # What TensorFlow's own writer makes of a scalar.
            events = [(each.step, each.tensor_proto) for each in reader.Tensors(tag)]
            scalars = [(step, value) for step, proto in events if (value := _scalar(proto)) is not None]
            yield from self._unseen(run, tag, scalars)

    def _unseen(
        self, run: Path, tag: str, events: list[tuple[int, float]]
    ) -> Iterator[tuple[str, int, float]]:
        for step, value in events[self._seen.get((run, tag), 0) :]:
            yield tag, int(step), float(value)
        self._seen[run, tag] = len(events)


def check_installed() -> None:
    """Refuse where the package is not there.

    Raises:
        UserError: with how to install it.
    """
    if importlib.util.find_spec(PACKAGE) is None:
        raise UserError(
            f"reading TensorBoard's files needs the package {PACKAGE}",
            key="jobs.metrics.tensorboard",
            hint=f"pip install {PACKAGE}",
        )


def _reader(run: Path) -> Any:
    check_installed()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    # It tells of each file that it opens.
    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    # 0: all of them, not a sample. What an attempt before has written is not taken away in between.
    everything = {"scalars": 0, "tensors": 0}
    return EventAccumulator(str(run), size_guidance=everything, purge_orphaned_data=False)


def _scalar(proto: Any) -> float | None:
    from tensorboard.util.tensor_util import make_ndarray

    array = make_ndarray(proto)
    return float(array.reshape(-1)[0]) if array.size == 1 and array.dtype.kind in "fiu" else None
