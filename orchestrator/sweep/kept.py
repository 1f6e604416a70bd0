"""The checkpoints that a trial has kept, within its share of the disk: `kept.json` in its folder.

It survives a requeue. What no longer fits is dropped: never the newest checkpoint nor the best, and so that
the others are spread over the steps as evenly as they can be when they come one by one.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from orchestrator.errors import UserError
from orchestrator.sweep.files import write_json

NAME = "kept.json"
GB = 1e9
# A temporary file that nobody has written to for so long is left over from a write that was killed.
STALE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Kept:
    """One checkpoint: its place below the trial's folder, its step and size, and whether it is the best."""

    path: str
    step: int
    bytes: int
    best: bool = False


@dataclass(frozen=True, slots=True)
class Ledger:
    """What a trial has kept.

    Attributes:
        first: the step of the first checkpoint that was ever offered, from which the spread is counted.
        kept: in the order of their steps.
        dropped: were dropped; their files are gone, or are to go.
    """

    first: int
    kept: tuple[Kept, ...] = ()
    dropped: tuple[Kept, ...] = field(default=())


def offer(folder: Path, path: str, step: int, limit: float, *, best: bool = False) -> Ledger:
    """Take in a checkpoint, and write down what stays; files to drop are left to `clear`.

    Args:
        folder: of the trial's checkpoints; all that is in it but JSON counts, only checkpoints are dropped.
        path: of the new one, below the folder.
        step: of the new one; one that is offered again takes its own place.
        limit: bytes that the folder may have.
        best: it is the best so far; then it stays until another one is.

    Raises:
        UserError: it does not fit, whatever is dropped.
    """
    ledger = read(folder) or _rebuilt(folder, path, step)
    new = Kept(path, step, (folder / path).stat().st_size, best)
    others = [replace(each, best=each.best and not best) for each in ledger.kept if each.path != path]
    others = [each for each in others if (folder / each.path).is_file()]
    going = tuple(each for each in ledger.dropped if each.path != path and (folder / each.path).is_file())
    room = limit - _unlisted(folder, {each.path for each in (*others, new, *going)})
    staying = thinned([*others, new], new, room, ledger.first)
    if (size := sum(each.bytes for each in staying)) > room:
        raise _too_large(limit - room + size, limit)
    gone = tuple(each for each in others if each not in staying)
    ledger = Ledger(ledger.first, tuple(staying), (*going, *gone))
    write_json(folder / NAME, asdict(ledger))
    return ledger


def clear(folder: Path, dropped: Iterable[Kept]) -> None:
    """Delete the files of checkpoints that were dropped."""
    for each in dropped:
        (folder / each.path).unlink(missing_ok=True)


def clear_torn(folder: Path) -> None:
    """Delete temporary files that a killed process was writing; they can be as large as a checkpoint."""
    for path in folder.glob(".*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > STALE_SECONDS:
                path.unlink()


def thinned(kept: Sequence[Kept], newest: Kept, room: float, first: int) -> list[Kept]:
    """Return what stays of checkpoints, in the order of their steps.

    One after another goes the one that leaves the smallest gap between those beside it; of equals the older
    one. So no gap gets much wider than two even ones, which is the best for what comes one by one.

    Args:
        kept: all of them.
        newest: has just come, and stays, as does that of the last step, which is mostly the same.
        room: bytes for all of them.
        first: the step from which the first gap is counted.
    """
    staying = sorted(kept, key=lambda each: (each.step, each.path))
    while sum(each.bytes for each in staying) > room:
        free = [each for each in staying[:-1] if each != newest and not each.best]
        if not free:
            break
        steps = [first, *(each.step for each in staying)]
        gaps = {each: steps[place + 2] - steps[place] for place, each in enumerate(staying[:-1])}
        staying.remove(min(free, key=lambda each: (gaps[each], each.step)))
    return staying


def read(folder: Path) -> Ledger | None:
    """Return what a trial has kept; None where nothing is written down, or it is damaged."""
    try:
        content = json.loads((folder / NAME).read_text())
        kept, dropped = (tuple(Kept(**each) for each in content[key]) for key in ("kept", "dropped"))
        return Ledger(int(content["first"]), kept, dropped)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _rebuilt(folder: Path, path: str, step: int) -> Ledger:
    """Return a ledger anew, with the files whose names are as that of a new checkpoint but for the step."""
    place, found = folder / path, []
    parts = re.split(rf"(?<!\d)0*{step}(?!\d)", place.name)
    if len(parts) == 2:
        pattern = re.compile(re.escape(parts[0]) + r"(\d+)" + re.escape(parts[1]))
        for each in sorted(place.parent.iterdir()):
            if (match := pattern.fullmatch(each.name)) and each.is_file():
                name = each.relative_to(folder).as_posix()
                found.append(Kept(name, int(match[1]), each.stat().st_size))
    return Ledger(min([step, *(each.step for each in found)]), tuple(found))


def _unlisted(folder: Path, listed: set[str]) -> int:
    """Return the bytes of the other files in a folder; ours in JSON are small and come and go."""
    total = 0
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if name not in listed and path.suffix != ".json" and not path.name.startswith("."):
            with contextlib.suppress(OSError):
                total += path.stat().st_size if path.is_file() else 0
    return total


def _too_large(wanted: float, limit: float) -> UserError:
    return UserError(
        f"this run's newest and best checkpoint and what else is in its folder take {wanted / GB:.3g} GB, "
        f"and its share of final.disk_gb is {limit / GB:.3g} GB",
        key="final.disk_gb",
        hint=f"Make it at least {wanted / limit:.1f} times as large, or null for no limit",
    )
