"""Leave it training: what looks like a plateau often is none, so it is reported instead of acted on (C12)."""

from __future__ import annotations

from orchestrator.diagnosis.finding import NO_PLATEAU, PLATEAU, WAITING, Finding, finding
from orchestrator.training.metrics import gain, selected
from orchestrator.training.stopping import REPORT, Best, Plateau
from orchestrator.training.training import Training


def look_for_plateau(training: Training) -> None:
    """After an epoch: report a plateau as soon as patience has come to its end, and note where it ends."""
    settings = training.settings.stopping
    if settings.then != REPORT or settings.patience is None:
        return
    name = selected(training.settings.select, training.task)
    if (seen := watched(training.plateaus, training.best, training.epoch, settings.patience)) is not None:
        waited = training.epoch - seen.since
        _tell(
            training,
            WAITING,
            f"{name} has not got better since epoch {seen.since} (for {waited} epochs); training goes on",
        )


def watched(plateaus: list[Plateau], best: Best, epoch: int, patience: int) -> Plateau | None:
    """Bring a list of plateaus up to an epoch; return the one that has just become one.

    Args:
        plateaus: in order; only the last one may go on.
        best: has seen the epoch.
        epoch: the one that has just ended.
        patience: epochs without anything better that make a plateau.
    """
    if best.mark is None:
        return None
    since = int(best.mark["best_epoch"])
    last = plateaus[-1] if plateaus else None
    if last is not None and last.until is None and since > last.since:
        last.until = since
    if best.waited(epoch) < patience or (last is not None and last.since == since):
        return None
    plateaus.append(Plateau(since, None, dict(best.mark)))
    return plateaus[-1]


def tell_end(training: Training) -> None:
    """At the end of training: report of each plateau whether it was one."""
    name = selected(training.settings.select, training.task)
    # Every leg of a run tells all of it: of a run in several only the last one's findings count.
    for each in training.plateaus:
        _tell(training, *judged(each, training.best, name, training.epoch))


def judged(plateau: Plateau, best: Best, name: str, epochs: int) -> tuple[str, str]:
    """Return the code and the evidence of what a plateau turned out to be."""
    if plateau.until is None:
        text = f"{name} did not get better from epoch {plateau.since} to the end, epoch {epochs}: a plateau"
        return PLATEAU, text
    assert best.metrics is not None, "a plateau begins with a best epoch"
    by = gain(best.metrics, plateau.before, name)
    return NO_PLATEAU, (
        f"what looked like a plateau of {name} from epoch {plateau.since} to {plateau.until} was none: "
        f"it got better by {by:.3g} after"
    )


def _tell(training: Training, code: str, evidence: str) -> None:
    found: Finding = finding(code, evidence, training.runs[0].updates)
    tell = getattr(training.trial, "found", None)
    if tell is not None:
        tell(found)
