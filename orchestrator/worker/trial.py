"""What a training function is given besides its config."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import StopTrial
from orchestrator.sweep import kept

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer
    from torch.utils.data import Subset

    from orchestrator.diagnosis.finding import Finding
    from orchestrator.diagnosis.watch import Watch


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One trial, seen from inside: reports go out through it, and its checkpoints have a place.

    Attributes:
        id: unique in the sweep, such as coarse-00007.
        stage: the stage it belongs to, or "final".
        params: the parameters of its setting, by dotted path.
        seed: its own seed, the same whenever it is run again.
        checkpoint_dir: private to this trial; what lies there survives a requeue.
        send: takes each line for the records.
        goes_on: says after a step's metrics whether the trial is worth going on with.
        scale: the stage's, by the words that `jobs.scale` uses: data, classes, class_rule, epochs and others.
        kind: what its phase is: a stage, or the final runs, which are described in more detail.
        disk_gb: what its checkpoints may take of the disk, in 10^9 bytes; None: no limit. `keep` sees to it.
        leads: this process is the one of rank 0; in others that train along nothing is kept or sent.
    """

    id: str
    stage: str
    params: Mapping[str, Any]
    seed: int
    checkpoint_dir: Path
    send: Callable[[dict[str, Any]], None]
    goes_on: Callable[[int, Mapping[str, float]], bool]
    scale: Mapping[str, Any] = field(default_factory=dict)
    kind: str = ""
    disk_gb: float | None = None
    leads: bool = True
    _watches: list[Watch] = field(default_factory=list, init=False, repr=False, compare=False)

    def report(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Report metrics of a step (an epoch, or however the function counts): the learning curve.

        Args:
            step: where in the training, growing; in a stage that prunes, the epochs so far.
            metrics: name to number; a tensor or array of one element counts as a number.

        Raises:
            StopTrial: the trial is abandoned; let it pass through.
            TypeError: a metric is no number.
        """
        numbers = {str(name): as_number(name, value) for name, value in metrics.items()}
        self.send(
            {"kind": "report", "trial": self.id, "step": int(step), "metrics": numbers, "time": time.time()}
        )
        for watch in self._watches:
            watch.reported(numbers)
        if not self.goes_on(int(step), numbers):
            raise StopTrial(f"not among the best at step {step}")

    def alive(self) -> None:
        """Show that the trial is at work where there is no metric to report yet, as within a long epoch.

        Without any line for `slurm.quiet_minutes` a trial is taken to hang and is ended.
        """
        self.send({"kind": "alive"})

    def keep(self, path: Path | str, step: int, best: bool = False) -> None:
        """Offer a checkpoint file below `checkpoint_dir` as a member of the ensemble.

        Where `checkpoint_dir` then holds more than `disk_gb`, others that were kept are dropped and deleted,
        never the newest nor the best, so that those that stay are spread evenly over the steps.

        Args:
            path: a whole file; it counts as kept from now on.
            step: where in the training it was written.
            best: it is the best so far, in place of the one before.

        Raises:
            ValueError: the file is not below `checkpoint_dir`, or not there.
            UserError: it does not fit into `disk_gb`, whatever is dropped.
        """
        if not self.leads:
            return
        place = Path(path).resolve()
        if not place.is_relative_to(self.checkpoint_dir.resolve()) or not place.is_file():
            raise ValueError(f"keep({str(path)!r}): there is no such file below {self.checkpoint_dir}")
        inside = place.relative_to(self.checkpoint_dir.resolve()).as_posix()
        kept.clear_torn(self.checkpoint_dir)
        line = {"trial": self.id, "step": int(step), "path": inside}
        if self.disk_gb is None:
            self.send({"kind": "checkpoint", **line})
            return
        ledger = kept.offer(self.checkpoint_dir, inside, int(step), self.disk_gb * kept.GB, best=best)
        self.send({"kind": "checkpoint", **line})
        for each in ledger.dropped:
            self.send({"kind": "dropped", "trial": self.id, "step": each.step, "path": each.path})
        # After the lines: a file that is still there is dropped again; one that is gone would never be.
        kept.clear(self.checkpoint_dir, ledger.dropped)

    def watch(self, model: nn.Module, optimizer: Optimizer, *, detail: bool | None = None) -> Watch:
        """Watch a training of PyTorch's: what is found of it stands in the results, with what to try.

        Give each update's loss to `loss` of what is returned, and each epoch's metrics to `epoch`; where the
        loop does not, what it reports is judged. It costs a few per cent of the smallest training.

        Args:
            model: before its first update.
            optimizer: its optimizer.
            detail: write `diagnosis.json` into `checkpoint_dir`; None: in the final runs alone.
        """
        from orchestrator.diagnosis.watch import Watch

        detailed = self.leads and (self.kind == "final" if detail is None else detail)
        watch = Watch(model, optimizer, send=self.found, folder=self.checkpoint_dir if detailed else None)
        self._watches.append(watch)
        return watch

    def subset(self, dataset: Any, labels: Any = None, *, seed: int = 0) -> Subset[Any]:
        """Return the part of a map-style dataset that this trial's stage is to train on.

        See `orchestrator.data.subsets.stage_subset`: it is stratified, the same for all trials of a stage,
        and contains what the stages before it had.

        Args:
            dataset: with a length and samples by number.
            labels: (n,) its classes or values; None: as the dataset has them, in `targets` or `labels`.
            seed: another one takes other samples.

        Raises:
            UserError: the labels do not fit the dataset, or the stage's classes are not among them.
        """
        from orchestrator.data.subsets import stage_subset

        return stage_subset(dataset, labels, self.scale, seed=seed)

    def end(self) -> None:
        """Close the watches that the training left open, however it has ended."""
        while self._watches:
            # What failed in the training is what is to be told.
            with contextlib.suppress(Exception):
                self._watches.pop(0).close()

    def found(self, finding: Finding) -> None:
        """Record what was seen of the training, for the results and the report."""
        self.send(finding.line(self.id))


def always(step: int, metrics: Mapping[str, float]) -> bool:
    """Judge every trial worth going on with."""
    return True


def as_number(name: object, value: Any) -> float:
    """Return a metric as a float.

    Raises:
        TypeError: it is no number; the message names the metric and what it is.
    """
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"metric '{name}' is {type(value).__name__} {value!r:.60}, not a number") from None
