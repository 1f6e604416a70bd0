"""Progress of a running sweep: a live view in a terminal, a line for each event elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from orchestrator.control.decide import Action, Freeze, MarkLost, Reconcile, Submit
from orchestrator.control.standing import Standing
from orchestrator.planning.plan import Phase
from orchestrator.report.terminal import duration, standing_view
from orchestrator.sweep.directory import ENSEMBLE

# A log file wants a line now and then, not every half second.
LOG_SECONDS = 10.0


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


class Progress:
    """Shows standings and actions as they come; a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=4) if console.is_terminal else None
        self._logged: tuple[int, float] = (-1, 0.0)

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def show(self, standing: Standing) -> None:
        """Show where the sweep stands."""
        if self._live:
            self._live.update(standing_view(standing))
            return
        done = sum(phase.done for phase in standing.phases)
        now = time.monotonic()
        if done == self._logged[0] or (now - self._logged[1] < LOG_SECONDS and standing.state == "running"):
            return
        self._logged = done, now
        current = next((p for p in standing.phases if p.done < p.planned), standing.phases[-1])
        best = "" if current.best is None else f", best {current.best:.4f}"
        left = f", left {duration(standing.seconds_left)}" if standing.state == "running" else ""
        self._console.print(Text(f"{current.name}: {current.done}/{current.planned} trials{best}{left}"))

    def act(self, action: Action) -> None:
        """Say what is being done."""
        match action:
            case Submit(phase, tasks, _, larger):
                trials = _count(sum(len(task) for task in tasks), "trial")
                more = ", with the larger request" if larger else ""
                self.note(f"{phase.name}: submitting {trials} in {_count(len(tasks), 'task')}{more}")
            case MarkLost(phase, submission, task, reason):
                self.note(f"{phase.name}: task {task} of submission {submission.number} was lost ({reason})")
            case Reconcile(phase, submission):
                self.note(f"{phase.name}: settling the interrupted submission {submission.intent.token}")
            case Freeze(phase, wave):
                part = f" (wave {wave + 1} of {len(phase.wave_sizes)})" if len(phase.wave_sizes) > 1 else ""
                self.note(f"{phase.name}: {_begins(phase, wave) or f'choosing its settings{part}'}")
            case _:
                pass  # the others are over before a person has read of them

    def note(self, text: str) -> None:
        """Print a line above the live view."""
        self._console.print(Text(text, style="dim"))


def _begins(phase: Phase, wave: int) -> str:
    """Say what a wave of the ensemble does; nothing for other phases, whose waves draw settings."""
    if phase.kind != ENSEMBLE:
        return ""
    if wave == len(phase.wave_sizes) - 1:
        return "measuring it" if wave > 1 else "choosing members and measuring"
    return ("predicting with the final runs' checkpoints", "choosing members", "training students")[wave]
