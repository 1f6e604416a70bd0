"""Progress of a running sweep: a live view in a terminal, a line for each event elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from orchestrator.control.decide import RUNNING, Action, Freeze, MarkLost, Reconcile, Submit
from orchestrator.control.standing import Standing
from orchestrator.planning.plan import Phase
from orchestrator.report.layout import duration
from orchestrator.report.terminal import standing_view
from orchestrator.sweep.directory import ENSEMBLE

# A log file wants a line now and then, not every half second.
LOG_SECONDS = 10.0


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


class Progress:
    """Shows standings and actions as they come; a context manager."""

    def __init__(self, console: Console, *, transient: bool = False) -> None:
        """Begin.

        Args:
            console: where to.
            transient: the live view is gone at the end.
        """
        self._console = console
        # A terminal that can't move its cursor gets lines, as a file does. Nothing is drawn again unless
        # something has changed: what does not flicker can be read.
        lively = console.is_terminal and not console.is_dumb_terminal
        self._live = Live(console=console, auto_refresh=False, transient=transient) if lively else None
        self._shown: tuple[str, int] | None = None
        self._logged: dict[str, int] = {}
        self._logged_at = -LOG_SECONDS

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            # Who interrupts it wants to go on reading.
            self._live.transient = self._live.transient and kind is None
            self._live.stop()

    def show(self, standing: Standing) -> None:
        """Show where the sweep stands."""
        if self._live is None:
            self._log(standing)
        # As text: a correlation that is not known is NaN, which is no other NaN's equal.
        elif (shown := (repr(standing), width := self._console.width)) != self._shown:
            self._shown = shown
            self._live.update(standing_view(standing, width=width, brief=True), refresh=True)

    def _log(self, standing: Standing) -> None:
        """Print a line for each phase that has got further, but not too often unless it is done."""
        now, resting = time.monotonic(), standing.state != RUNNING
        further = [phase for phase in standing.phases if phase.done != self._logged.get(phase.name, 0)]
        done = any(phase.done >= phase.planned for phase in further)
        if resting or done or now - self._logged_at >= LOG_SECONDS:
            for phase in further:
                best = "" if phase.best is None else f", best {phase.best:.4f}"
                left = "" if standing.seconds_left is None else f", left {duration(standing.seconds_left)}"
                self._line(
                    f"{phase.name}: {phase.done}/{phase.planned} trials{best}{'' if resting else left}"
                )
                self._logged[phase.name], self._logged_at = phase.done, now
        if resting:
            self._line(f"{standing.name}: {standing.state}")

    def _line(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True)

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
        self._console.print(Text(text, style="dim"), soft_wrap=self._live is None)


def _begins(phase: Phase, wave: int) -> str:
    """Say what a wave of the ensemble does; nothing for other phases, whose waves draw settings."""
    if phase.kind != ENSEMBLE:
        return ""
    if wave == len(phase.wave_sizes) - 1:
        return "measuring it" if wave > 1 else "choosing members and measuring"
    return ("predicting with the final runs' checkpoints", "choosing members", "training students")[wave]
