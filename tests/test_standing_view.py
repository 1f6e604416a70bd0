"""What `status` and `run` show: on wide and narrow terminals, in files, live, and at the end."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.cells import cell_len
from rich.console import Console

from commands import write_user_sweep
from orchestrator.cli import main
from orchestrator.commands import standing as status_command
from orchestrator.control import drive
from orchestrator.control.standing import PhaseStanding, Standing
from orchestrator.planning.narrowing.trust import Agreement
from orchestrator.report import progress
from orchestrator.report.progress import Progress
from orchestrator.report.ranges import every_range_view, ranges_view
from orchestrator.report.terminal import standing_view
from orchestrator.space import Parameter

STAGES = ("tiny", "small", "coarse", "medium", "fine", "finest")
NAMES = (
    "optimizer.lr",
    "optimizer.weight_decay",
    "model.dropout",
    *(f"model.part_{n}.width" for n in range(9)),
)
REASON = "narrowed to 91% of its width: the 8 best of 29 lie in 0.00418 … 0.0223, the best at 0.0154"


def phase(name: str, planned: int, **counts: Any) -> PhaseStanding:
    return PhaseStanding(name=name, kind="stage", planned=planned, **counts)


def standing(*phases: PhaseStanding, **changes: Any) -> Standing:
    given: dict[str, Any] = {
        "name": "six-stages", "state": "running", "message": "", "metric": "val/accuracy", "mode": "max",
        "unit": "GPU", "hours": 12.0, "planned_hours": 40.0, "seconds_left": 3700.0,
    }  # fmt: skip
    return Standing(phases=phases, **given | changes)


def agreement(
    low: str, high: str, correlation: float, interval: tuple[float, float], settings: int
) -> Agreement:
    return Agreement(low=low, high=high, settings=settings, correlation=correlation, interval=interval)


def large() -> Standing:
    """10,000 trials in six stages, three of them done."""
    done = {"completed": 2900, "failed": 37, "diverged": 63, "best": 0.9123}
    return standing(
        *(phase(name, 3000, **done) for name in STAGES[:3]),
        phase("medium", 600, completed=100, running=64, best=0.9301),
        phase("fine", 300),
        phase("finest", 100),
        agreements=(
            agreement("tiny", "small", 0.92, (0.8, 0.97), 40),
            agreement("small", "coarse", 0.3, (0.02, 0.5), 12),
            agreement("coarse", "medium", float("nan"), (-1.0, 1.0), 1),
        ),
    )


def spaces(*stages: str) -> dict[str, tuple[Parameter, ...]]:
    """Ranges of 12 parameters; each stage changes one more of them."""
    return {
        stage: tuple(
            Parameter(name=name, kind="float", low=low, high=1.0, log=True, reason=REASON)
            for place, name in enumerate(NAMES)
            for low in (1e-5 if number < place else 1e-6,)
        )
        for number, stage in enumerate(stages)
    }  # fmt: skip


def printed(view: Any, width: int, **options: Any) -> list[str]:
    console = Console(file=io.StringIO(), width=width, **options)
    console.print(view)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [40, 50, 80, 200])
def test_a_line_for_each_phase_on_every_terminal(width: int) -> None:
    lines = printed(standing_view(large(), width=width, brief=True), width)
    assert max(map(cell_len, lines)) <= width and len(lines) <= 20
    (row,) = (line.split() for line in lines if line.strip().startswith("coarse "))
    assert row[0] == "coarse" and "3000/3000" in row
    assert row[row.index("63") + 1] == "37" and (row[-1] == "0.9123" or width < 80)
    assert any("━" in line for line in lines) == (width >= 80)
    head = " ".join(lines[:4])
    for word in (
        "six-stages",
        "running",
        "val/accuracy 0.9301 (medium)",
        "spent 12.0 of 40.0 GPU-hours planned",
        "left 1 h 01 min",
    ):
        assert word in head, "no part of it is broken"


def test_counts_that_are_all_zero_take_no_room() -> None:
    text = "\n".join(printed(standing_view(standing(phase("a", 4, completed=1, best=1.0)), width=80), 80))
    assert not any(word in text for word in ("pruned", "diverged", "failed", "   running"))
    pruned = standing_view(standing(phase("a", 4, pruned=3)), width=80)
    assert "pruned" in "\n".join(printed(pruned, 80))


def test_rankings_are_figures_in_brief_and_sentences_in_full() -> None:
    brief = " ".join(printed(standing_view(large(), width=300, brief=True), 300))
    assert "tiny → small 0.92, small → coarse 0.30 loosely, coarse → medium ? (1 setting)" in brief
    full = " ".join(printed(standing_view(large(), width=300), 300))
    assert "rankings carry over loosely from small to coarse" in full


def test_what_has_become_of_the_ranges_takes_a_line_each() -> None:
    lines = printed(ranges_view(spaces(*STAGES), width=120, most=3), 120)
    assert max(map(cell_len, lines)) <= 120 and len(lines) < 12
    (row,) = (line for line in lines if "weight_decay" in line and "log" in line)
    assert row.index("1e-05") < row.index("1e-06") < row.index("small: narrowed to"), "why it changed last"
    text = " ".join(" ".join(lines).split())
    assert "narrowed or widened too: model.part_1.width, model.part_2.width" in text
    assert "as declared: optimizer.lr, model.part_3.width" in text and "orchestrate status DIR --why" in text
    assert REASON not in text


@pytest.mark.parametrize("width", [30, 50, 80])
def test_ranges_on_a_narrow_terminal(width: int) -> None:
    lines = printed(ranges_view(spaces(*STAGES), width=width), width)
    assert max(map(cell_len, lines)) <= width
    assert ("declared  " in "\n".join(lines)) == (width >= 80)


def test_nothing_is_cut_in_a_file_or_when_all_reasons_are_asked_for() -> None:
    (row,) = (
        line for line in printed(ranges_view(spaces("a", "b", "c"), width=1000), 1000) if "decay" in line
    )
    assert row.rstrip().endswith(REASON)
    text = " ".join(printed(every_range_view(spaces("a", "b", "c")), 1000))
    assert text.count(REASON) == 2 * len(NAMES)


def test_the_reason_is_that_of_the_last_change() -> None:
    found = {
        stage: (Parameter(name="x", kind="float", low=low, high=9.0, reason=f"because of {stage}"),)
        for stage, low in (("a", 0.0), ("b", 1.0), ("c", 2.0), ("d", 2.0))
    }
    (row,) = (line for line in printed(ranges_view(found, width=120), 120) if "because" in line)
    assert row.split() == ["x", "0", "…", "9", "2", "…", "9", "c:", "because", "of", "c"]


def test_ranges_of_one_stage_or_none() -> None:
    assert "as declared" not in "".join(printed(ranges_view(spaces("a"), width=80), 80))
    assert printed(ranges_view({}, width=80), 80) == [""] or not printed(ranges_view({}, width=80), 80)
    text = " ".join(printed(ranges_view(spaces("a", "a2"), width=80), 80))
    assert "ranges as declared: optimizer.lr, model.dropout" in text


def test_a_file_gets_a_line_for_what_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("orchestrator.report.progress.time.monotonic", lambda: now[0])
    console = Console(file=io.StringIO(), width=20)
    with Progress(console) as shown:
        for seconds, done in ((0, 1), (1, 2), (2, 2), (11, 2), (12, 3), (30, 3)):
            now[0] = seconds
            shown.show(standing(phase("a", 9, completed=done, best=0.5), seconds_left=None))
        shown.show(standing(phase("a", 9, completed=9, best=0.5), phase("b", 5, failed=1)))
        shown.show(standing(phase("a", 9, completed=9), phase("b", 5, failed=5), state="paused"))
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().splitlines() == [
        "a: 1/9 trials, best 0.5000",
        "a: 2/9 trials, best 0.5000",
        "a: 3/9 trials, best 0.5000",
        "a: 9/9 trials, best 0.5000, left 1 h 01 min",
        "b: 1/5 trials, left 1 h 01 min",
        "b: 5/5 trials",
        "six-stages: paused",
    ]


def test_a_terminal_is_drawn_again_only_when_something_has_changed() -> None:
    console = Console(file=io.StringIO(), width=80, height=24, force_terminal=True, color_system=None)
    assert isinstance(console.file, io.StringIO)
    with Progress(console) as shown:
        shown.show(large())
        drawn = len(console.file.getvalue())
        for _ in range(3):
            shown.show(large())
        assert len(console.file.getvalue()) == drawn
        shown.show(standing(phase("a", 4)))
        assert len(console.file.getvalue()) > drawn


def test_a_terminal_that_can_not_move_its_cursor_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    with Progress(console) as shown:
        shown.show(standing(phase("a", 4, completed=1)))
    assert isinstance(console.file, io.StringIO)
    assert "\x1b" not in console.file.getvalue() and "a: 1/4 trials" in console.file.getvalue()


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planned")
    write_user_sweep(folder)
    done = CliRunner().invoke(main, ["plan", str(folder / "sweep.yaml"), f"dir={folder}/s"])
    assert done.exit_code == 0, done.output
    return folder / "s"


def test_watching_ends_with_the_sweep(planned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = [
        standing(phase("a", 4, completed=n), state="running" if n < 3 else "stuck", message="why")
        for n in range(4)
    ]
    monkeypatch.setattr(drive, "observe", lambda sweep: looks.pop(0))
    monkeypatch.setattr(status_command, "WATCH_SECONDS", 0.0)
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.0)
    done = CliRunner().invoke(main, ["status", str(planned), "--watch"])
    assert done.exit_code == 0 and not looks
    lines = [line.partition(",")[0] for line in done.stdout.splitlines()]
    assert lines.pop(0).startswith("nobody drives it: orchestrate run")
    assert lines == ["a: 1/4 trials", "a: 2/4 trials", "a: 3/4 trials", "six-stages: stuck", "why"]


def test_who_has_seen_enough_of_watching_gets_no_message(
    planned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(sweep: object) -> Standing:
        raise KeyboardInterrupt

    monkeypatch.setattr(drive, "observe", interrupted)
    done = CliRunner().invoke(main, ["status", str(planned), "--watch"])
    assert done.exit_code == 130 and done.output == ""


def test_in_a_file_no_sentence_is_broken(planned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    message = "6 of 6 trials of 'coarse' failed in the same way: " + "x y " * 60
    monkeypatch.setattr(
        drive, "observe", lambda sweep: standing(phase("a", 4), state="paused", message=message)
    )
    lines = CliRunner().invoke(main, ["status", str(planned)]).stdout.splitlines()
    assert message.rstrip() in [line.rstrip() for line in lines]
    assert any(line.startswith("After a fix of the code") for line in lines)
