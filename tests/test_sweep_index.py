"""What was read before, in memory or in the index: the facts are the files', whatever happened to either."""

from __future__ import annotations

import json
import math
import os
import tempfile
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.planning.plan import Phase, Scale
from orchestrator.sweep import facts, index, records
from orchestrator.sweep.digest import Stamp, read_digest
from orchestrator.sweep.directory import STAGE, SweepDirectory, TrialSpec, write_trials
from orchestrator.sweep.facts import read_phase, retries_path
from orchestrator.sweep.files import write_json
from orchestrator.sweep.memory import MOST_REMEMBERED, Remembered
from orchestrator.sweep.records import COMPLETED, FAILED, Outcome, encode, number, whole

COARSE = Phase(kind=STAGE, name="coarse", trials=4, scale=Scale())
TRIALS = ("a", "b", "ü", "coarse-000001")


def frozen(path: Path) -> SweepDirectory:
    directory = SweepDirectory(path)
    specs = [TrialSpec(trial_id=name, setting_id=name, params={"x": name}, seed=0) for name in TRIALS]
    write_trials(directory.phase(STAGE, "coarse").trials, specs)
    directory.phase(STAGE, "coarse").records.mkdir()
    return directory


def records_of(directory: SweepDirectory) -> Path:
    return directory.phase(STAGE, "coarse").records


@pytest.fixture
def directory(tmp_path: Path) -> SweepDirectory:
    return frozen(tmp_path)


@pytest.fixture(autouse=True)
def worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "LEAST_BYTES", 1)
    monkeypatch.setattr(index, "NEW_SHARE", 1e-9)


def forget() -> None:
    """Begin as a new process does."""
    for value in (*vars(facts).values(), *vars(index).values()):
        if isinstance(value, Remembered):
            value._kept.clear()


# What the facts are by definition: every line of every file, parsed.


def by_definition(directory: SweepDirectory) -> list[str]:
    files = records.read_directory(records_of(directory))
    retries = [retry for retry in facts.read_retries(directory) if retry.phase == "coarse"]

    def forgiven(outcome: Outcome) -> bool:
        return outcome.state == FAILED and any(
            outcome.trial in r.trials and outcome.submission <= r.submission for r in retries
        )

    def age(outcome: Outcome) -> tuple[int, float, str]:
        return outcome.submission, math.inf if math.isnan(outcome.time) else outcome.time, repr(outcome)

    chosen: dict[str, Outcome] = {}
    everything = [outcome for file in files for outcome in records.outcomes(file)]
    for outcome in sorted((o for o in everything if o.trial in TRIALS and not forgiven(o)), key=age):
        if outcome.trial not in chosen or chosen[outcome.trial].state == FAILED:
            chosen[outcome.trial] = outcome
    started: dict[tuple[int, int], set[str]] = {}
    for file in files:
        key = whole(file.header.get("submission")), whole(file.header.get("task"))
        starts = {str(line.get("trial")) for line in file.lines if line["kind"] == "start"}
        started.setdefault(key, set()).update(starts)
    unreadable = sum(file.unreadable for file in files)
    startups = [startup for file in files for startup in startups_of(file.lines)]
    return told(chosen, started, unreadable, fmean(startups) if startups else None)


def startups_of(lines: list[dict[str, Any]]) -> list[float]:
    found = []
    reports: dict[str, list[float]] = {}
    for line in lines:
        trial = str(line.get("trial"))
        if line["kind"] == "start":
            reports[trial] = []
        elif line["kind"] == "report" and trial in reports:
            reports[trial].append(number(line.get("time")))
        elif line["kind"] == "outcome":
            times, seconds = reports.pop(trial, []), number(line.get("seconds"))
            if line.get("state") == COMPLETED and len(times) > 1:
                step = (times[-1] - times[0]) / (len(times) - 1)
                if math.isfinite(seconds - step * len(times)):
                    found.append(max(0.0, seconds - step * len(times)))
    return found


def told(outcomes: Any, started: Any, unreadable: int, startup: float | None) -> list[str]:
    """Put facts into words, because NaN is not equal to itself."""
    begun = sorted((key, sorted(value)) for key, value in started.items())
    return [*(repr(item) for item in sorted(outcomes.items())), repr(begun), repr((unreadable, startup))]


def as_read(directory: SweepDirectory) -> list[str]:
    known = read_phase(directory, COARSE)
    return told(known.outcomes, known.started, known.unreadable, known.startup_seconds)


# What happens to a sweep's folder.

times = st.one_of(st.floats(0, 100), st.sampled_from((1.0, math.nan, "noon", 3, None)))
trials = st.sampled_from((*TRIALS, "nobody's", 7))
metrics = st.dictionaries(
    st.sampled_from(("acc", "loss", 'a"b', "ä")),
    st.one_of(st.floats(), st.sampled_from(("NaN", 3, None, "x")), st.lists(st.integers(), max_size=2)),
    max_size=3,
)
lines = st.one_of(
    st.builds(lambda t, when: {"kind": "start", "trial": t, "time": when}, trials, times),
    st.builds(
        lambda t, step, m, when: {"kind": "report", "trial": t, "step": step, "metrics": m, "time": when},
        trials, st.sampled_from((1, 2, -1, "3")), metrics, times,
    ),
    st.builds(
        lambda t, state, m, seconds, when: {
            "kind": "outcome", "trial": t, "state": state, "metrics": m, "seconds": seconds, "error": "é\n",
            "cause": "memory", "step": 2, "time": when,
        },
        trials, st.sampled_from((*records.STATES, "done")), metrics, times, times,
    ),
    st.builds(lambda task, n: {"kind": "task", "submission": n, "task": task, "host": "h"}, st.integers(0, 1),
              st.sampled_from((1, 2, "x"))),
)  # fmt: skip
raw = st.one_of(
    lines.map(lambda line: encode(line).encode()),
    st.sampled_from((
        b"\n", b"  \n", b"[1]\n", b'"kind"\n', b"\xff\x00\n", b'{"kind":"report"}\n', b'{"kind":"rep', b"nul",
        b'{"kind":"report","trial":"a","step":01,"metrics":{},"time":1}\n',
        b'{"kind":"report","trial":"a","step":1,"metrics":{"x":1,},"time":1}\n',
        b'{"kind":"report","trial":"a","step":1,"metrics":{},"time":1e999}\n',
        b'{"kind":"report","trial":"a\\u0062","step":1,"metrics":{},"time":1}\n',
        b'{"kind":"start","trial":"\xff","time":1}\n', '{"kind":"start","trial":"ü","time":1}\n'.encode(),
        b'\xef\xbb\xbf{"kind":"start","trial":"a","time":1}\n', b'{"kind":"start","trial":"a","time":NaN}\n',
    )),
)  # fmt: skip
names = st.sampled_from(("0001-0000-0.jsonl", "0001-0001-0.jsonl", "0002-0000-0.jsonl"))
Happening = tuple[str, str, Any]
happenings = st.lists(
    st.one_of(
        st.tuples(st.just("append"), names, st.lists(raw, min_size=1, max_size=6).map(b"".join)),
        st.tuples(st.just("cut"), names, st.integers(1, 200)),
        st.tuples(st.just("replace"), names, st.lists(raw, max_size=4).map(b"".join)),
        st.tuples(st.just("remove"), names, st.none()),
        st.tuples(st.just("index"), st.just(""), st.none()),
        st.tuples(st.just("forget"), st.just(""), st.none()),
        st.tuples(st.just("spoil"), st.just(""), st.tuples(st.integers(0, 10_000), st.integers(0, 2))),
        st.tuples(st.just("retry"), st.just(""), st.sampled_from(TRIALS)),
    ),
    max_size=14,
)


def happen(directory: SweepDirectory, moment: int, what: str, name: str, more: Any) -> None:
    folder = records_of(directory)
    path = folder / name
    if what == "append":
        with open(path, "ab") as handle:
            handle.write(more)
    elif what == "cut" and path.exists():
        os.truncate(path, max(0, path.stat().st_size - more))
    elif what == "replace":
        other = folder / ".other"
        other.write_bytes(more)
        other.replace(path)
    elif what == "remove":
        path.unlink(missing_ok=True)
    elif what == "index":
        index.write_index(folder)
    elif what == "forget":
        forget()
    elif what == "spoil" and (folder / ".index").exists():
        spoil(folder / ".index", *more)
        forget()
    elif what == "retry":
        wish = {"phase": "coarse", "trials": [more], "submission": 1}
        write_json(retries_path(directory) / f"{moment:04d}.json", [wish])
    # A file system's clock may tick more slowly than a test appends.
    if path.is_file():
        os.utime(path, ns=(moment, moment))


def spoil(path: Path, place: int, how: int) -> None:
    content = bytearray(path.read_bytes())
    place %= len(content)
    if how == 0:
        content[place] ^= 1
    elif how == 1:
        del content[place:]
    else:
        content += b"x"
    path.write_bytes(bytes(content))


@given(happenings)
@settings(max_examples=400)
def test_facts_are_what_the_files_say_whatever_was_read_before(story: list[Happening]) -> None:
    forget()
    with tempfile.TemporaryDirectory() as folder:
        directory = frozen(Path(folder))
        for moment, (what, name, more) in enumerate(story, start=1):
            happen(directory, moment, what, name, more)
            assert as_read(directory) == by_definition(directory), (moment, what)


def write(
    directory: SweepDirectory, *happened: Any, name: str = "0001-0000-0.jsonl", mode: str = "a"
) -> Path:
    path = records_of(directory) / name
    with open(path, mode) as handle:
        handle.write("".join(encode(line) for line in happened))
    return path


HEADER = {"kind": "task", "submission": 1, "task": 0}
START: dict[str, Any] = {"kind": "start", "trial": "a", "time": 1.0}
END: dict[str, Any] = {
    "kind": "outcome",
    "trial": "a",
    "state": "completed",
    "metrics": {"acc": 1.0},
    "seconds": 11.0,
    "time": 12.0,
}
REPORTS: list[dict[str, Any]] = [
    {"kind": "report", "trial": "a", "step": step, "metrics": {"acc": 0.5}, "time": 3.0 + 2 * step}
    for step in (1, 2, 3, 4)
]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The record files that were read, and how far each was known before."""
    found: list[tuple[str, int]] = []

    def reading(path: Path, before: Any) -> Any:
        found.append((path.name, before.settled.offset if before else 0))
        return read_digest(path, before)

    monkeypatch.setattr(index, "read_digest", reading)
    return found


def test_only_what_came_since_is_read(directory: SweepDirectory, opened: list[tuple[str, int]]) -> None:
    first = write(directory, HEADER, START)
    write(directory, HEADER, name="0001-0001-0.jsonl")
    read_phase(directory, COARSE)
    assert [name for name, _ in opened] == ["0001-0000-0.jsonl", "0001-0001-0.jsonl"]
    opened.clear()
    assert read_phase(directory, COARSE) is read_phase(directory, COARSE)
    assert opened == []
    before = first.stat().st_size
    write(directory, END)
    assert set(read_phase(directory, COARSE).outcomes) == {"a"}
    assert opened == [(first.name, before)]


def test_the_next_process_reads_what_the_index_does_not_hold(
    directory: SweepDirectory, opened: list[tuple[str, int]]
) -> None:
    write(directory, HEADER, START, *REPORTS, END)
    torn = write(directory, HEADER, name="0001-0001-0.jsonl")
    with open(torn, "a") as handle:
        handle.write('{"kind":"sta')
    known = read_phase(directory, COARSE)
    assert known.startup_seconds == pytest.approx(3.0), "steps of two seconds, four of them, in eleven"
    assert index.write_index(records_of(directory))
    opened.clear()
    forget()
    # What one process says is what the next says; a file that ends in half a line is looked at again.
    assert read_phase(directory, COARSE) == known
    assert [name for name, _ in opened] == ["0001-0001-0.jsonl"]


def test_a_trial_that_is_half_reported_goes_on_in_the_next_process(directory: SweepDirectory) -> None:
    write(directory, HEADER, START, *REPORTS[:2])
    read_phase(directory, COARSE)
    assert index.write_index(records_of(directory))
    forget()
    # The second outcome has no start of its own, and says nothing of the startup.
    write(directory, *REPORTS[2:], END, {**END, "seconds": 99.0})
    known = read_phase(directory, COARSE)
    assert known.startup_seconds == pytest.approx(3.0)
    assert known.started == {(1, 0): frozenset("a")}


def test_another_file_of_the_same_size_is_read(directory: SweepDirectory) -> None:
    path = write(directory, HEADER, END)
    assert set(read_phase(directory, COARSE).outcomes) == {"a"}
    assert index.write_index(records_of(directory))
    other = path.with_name(".other")
    other.write_text(path.read_text().replace('"a"', '"b"'))
    other.replace(path)
    assert set(read_phase(directory, COARSE).outcomes) == {"b"}
    forget()
    assert set(read_phase(directory, COARSE).outcomes) == {"b"}


def test_an_index_of_another_version_is_passed_over(
    directory: SweepDirectory, opened: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(directory, HEADER, START, END)
    known = read_phase(directory, COARSE)
    assert index.write_index(records_of(directory))
    monkeypatch.setattr(index, "VERSION", index.VERSION + 1)
    forget()
    assert read_phase(directory, COARSE) == known
    assert len(opened) == 2


@pytest.mark.parametrize("body", ["[]", "{", '{"0001-0000-0.jsonl": []}', '{"0001-0000-0.jsonl": 7}', "null"])
def test_a_whole_index_of_nonsense_is_passed_over(directory: SweepDirectory, body: str) -> None:
    import zlib

    write(directory, HEADER, START, END)
    head = f"{index.VERSION} {zlib.crc32(body.encode())}"
    (records_of(directory) / ".index").write_text(f"{head}\n{body}")
    assert set(read_phase(directory, COARSE).outcomes) == {"a"}


def test_a_full_disk_costs_the_index_alone(
    directory: SweepDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: object) -> None:
        raise OSError(28, "No space left on device")

    write(directory, HEADER, START, END)
    read_phase(directory, COARSE)
    monkeypatch.setattr(index, "write_atomic", full)
    assert not index.write_index(records_of(directory))
    assert [path.name for path in records_of(directory).iterdir()] == ["0001-0000-0.jsonl"]


def test_it_is_written_when_much_is_new_and_never_for_a_small_sweep(
    directory: SweepDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = records_of(directory)
    monkeypatch.setattr(index, "NEW_SHARE", 0.2)
    assert not index.write_index(folder), "nothing was read"

    def grow(count: int) -> bool:
        write(directory, *[HEADER] * count)
        read_phase(directory, COARSE)
        return index.write_index(folder)

    monkeypatch.setattr(index, "LEAST_BYTES", 10**6)
    assert not grow(100)
    monkeypatch.setattr(index, "LEAST_BYTES", 1)
    assert grow(1)
    assert not grow(10), "a tenth is new"
    assert grow(20)
    forget()
    read_phase(directory, COARSE)
    assert not grow(1), "the index on disk counts as well"


def test_a_file_that_vanishes_while_it_is_read_is_none(directory: SweepDirectory) -> None:
    write(directory, HEADER, START, END)
    listed = {name: Stamp(1, 1, 1) for name in ("0001-0000-0.jsonl", "0009-0000-0.jsonl")}
    found = index.read_digests(records_of(directory), listed)
    assert len(found) == 1


def test_few_phases_are_remembered(tmp_path: Path) -> None:
    for count in range(MOST_REMEMBERED + 3):
        directory = frozen(tmp_path / str(count))
        assert len(read_phase(directory, COARSE).trials) == len(TRIALS)
    assert (
        len(facts._phases._kept) == len(facts._trials._kept) == len(index._readings._kept) == MOST_REMEMBERED
    )


def test_the_index_is_no_record_file(directory: SweepDirectory) -> None:
    write(directory, HEADER, START, END)
    read_phase(directory, COARSE)
    assert index.write_index(records_of(directory))
    assert len(records.read_directory(records_of(directory))) == 1
    assert json.loads((records_of(directory) / ".index").read_bytes().split(b"\n", 1)[1])
