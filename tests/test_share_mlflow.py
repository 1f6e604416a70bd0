"""A sweep as runs of MLflow: always in one made up, and in MLflow itself where it is installed."""

from __future__ import annotations

import contextlib
import importlib.util
import socket
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from made_mlflow import ENTITIES, MadeMlflow
from made_sweep import METRIC, make_sweep, run_a_failed_one_again
from orchestrator.errors import UserError
from orchestrator.integrations import alone, mlflow_book, mlflow_open, mlflow_share
from orchestrator.integrations.mlflow_open import open_place
from orchestrator.integrations.mlflow_place import Place, find_place
from orchestrator.integrations.mlflow_share import share_with_mlflow
from orchestrator.results.compact import compact
from orchestrator.results.load import load_results
from orchestrator.sweep.lease import hold

INSTALLED = importlib.util.find_spec("mlflow") is not None
real = pytest.mark.skipif(not INSTALLED, reason="needs MLflow: pip install -e '.[mlflow]'")


@dataclass(frozen=True)
class Store:
    """Where the tests share to."""

    client: Any
    place: Place

    def share(self, sweep: Path, **options: Any) -> dict[str, tuple[int, int, int | None]]:
        shared = share_with_mlflow(sweep, self.place, **options)
        return {one.stage: (one.trials, one.added, one.replaced) for one in shared}

    def runs(self, name: str = "digits") -> dict[str, Any]:
        """The runs that are not deleted, by name; each once."""
        found = self.client.search_runs([self.client.get_experiment_by_name(name).experiment_id])
        runs = {run.info.run_name: run for run in found}
        assert len(runs) == len(found)
        return runs

    def content(self, name: str = "digits") -> dict[str, Any]:
        """All that runs hold, without the ids that differ from one time to the next."""
        runs = self.runs(name)
        names = {run.info.run_id: key for key, run in runs.items()}
        return {
            key: (
                {**run.data.tags, "mlflow.parentRunId": names.get(run.data.tags.get("mlflow.parentRunId"))},
                run.data.params,
                run.data.metrics,
                (run.info.status, run.info.start_time, run.info.end_time),
                [(one.step, one.value) for one in self.client.get_metric_history(run.info.run_id, METRIC)],
            )
            for key, run in runs.items()
        }


@pytest.fixture(params=["made", pytest.param("folder", marks=real)])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    place = find_place(str(tmp_path / "runs"))
    if request.param == "made":
        made = MadeMlflow()
        monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(entities=ENTITIES))
        monkeypatch.setattr(mlflow_share, "check_installed", lambda tool: None)
        monkeypatch.setattr(mlflow_share, "open_place", lambda place: contextlib.nullcontext(made))
        yield Store(made, place)
        return
    for name in (*mlflow_open.SETTINGS, "MLFLOW_ALLOW_FILE_STORE"):
        monkeypatch.delenv(name, raising=False)
    with open_place(place) as client:
        yield Store(client, place)


def made(path: Path, **changes: Any) -> Path:
    given: dict[str, Any] = {"trials": (18, 4), "finals": 3, "tasks": 2, **changes}
    sweep = make_sweep(path / "made", **given)
    compact(sweep)
    return sweep


def test_a_sweep_becomes_an_experiment(store: Store, tmp_path: Path) -> None:
    sweep = made(tmp_path)
    assert store.share(sweep) == {"coarse": (18, 18, 0), "medium": (4, 4, 0), "final": (3, 3, 0)}
    runs, rows = store.runs(), load_results(sweep).trials.set_index("trial_id")
    assert set(runs) == {*rows.index, "coarse", "medium", "final", "ensemble"}
    for name, row in rows.iterrows():
        run = runs[str(name)]
        assert run.data.params["optimizer.lr"] == repr(row["param.optimizer.lr"])
        assert run.info.status == ("FAILED" if row["state"] == "failed" else "FINISHED")
        assert run.data.tags["sweep.state"] == row["state"]
        assert run.data.tags["mlflow.parentRunId"] == runs[row["stage"]].info.run_id
        assert run.info.end_time - run.info.start_time == round(1000 * row["seconds"])
        steps = store.client.get_metric_history(run.info.run_id, METRIC)
        if row["state"] == "completed":
            assert run.data.metrics["objective"] == row["objective"] == steps[-1].value
            assert [one.step for one in steps] == list(range(1, int(row["scale.epochs"]) + 1))
            assert steps[0].timestamp > run.info.start_time
    assert {"failed", "diverged", "completed"} == set(rows["state"])
    stage = runs["coarse"]
    assert stage.info.status == "FINISHED"
    assert stage.data.params["scale.data"] == "0.1"
    assert stage.data.params["range.optimizer.lr"] == "0.0001 to 1, log"
    assert stage.data.params["range.model.width"] == "[16, 32, 64, 128]"
    best = rows[rows["stage"] == "coarse"]["objective"].max()
    assert (stage.data.metrics["objective"], stage.data.metrics["trials/ended"]) == (best, 18)
    assert runs["ensemble"].data.metrics["test/ensemble"] == 0.97
    assert "final-0000" in runs["ensemble"].data.tags["sweep.members"]


def test_again_adds_what_is_new_and_leaves_the_rest(store: Store, tmp_path: Path) -> None:
    first = store.share(made(tmp_path, done=0.4, tasks=1))["coarse"][0]
    before, parent = store.runs(), store.runs()["coarse"]
    assert 0 < first < 18
    assert parent.info.status == "RUNNING"
    sweep = made(tmp_path, tasks=1)
    assert store.share(sweep)["coarse"] == (18, 18 - first, 0)
    after = store.runs()
    assert {after[name].info.run_id for name in before} == {run.info.run_id for run in before.values()}
    ended = store.client.get_metric_history(parent.info.run_id, "trials/ended")
    assert [(one.step, one.value) for one in ended] == [(first, first), (18, 18)]
    content = store.content()
    assert {added for _, added, _ in store.share(sweep).values()} == {0}
    assert store.content() == content
    assert {run.info.run_id for run in store.runs().values()} == {run.info.run_id for run in after.values()}


def test_a_trial_that_was_run_again_is_replaced(store: Store, tmp_path: Path) -> None:
    sweep = made(tmp_path, trials=(18,), finals=0)
    store.share(sweep)
    name = run_a_failed_one_again(sweep)
    assert store.share(sweep) == {"coarse": (18, 0, 1)}
    run = store.runs()[name]
    assert (run.info.status, run.data.metrics["objective"]) == ("FINISHED", 0.5)
    assert store.share(sweep) == {"coarse": (18, 0, 0)}


def test_what_dies_anywhere_is_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(entities=ENTITIES))
    monkeypatch.setattr(mlflow_share, "check_installed", lambda tool: None)
    sweep, place = made(tmp_path, trials=(2,), finals=0), find_place("runs")
    whole: dict[str, Any] = {}
    for dies_after in (None, *range(11)):
        client = MadeMlflow(dies_after=dies_after)
        monkeypatch.setattr(
            mlflow_share, "open_place", lambda place, client=client: contextlib.nullcontext(client)
        )
        if dies_after is None:
            share_with_mlflow(sweep, place)
            whole = Store(client, place).content()
            assert len(client.calls) == 11
            continue
        with pytest.raises(KeyboardInterrupt):
            share_with_mlflow(sweep, place)
        client.dies_after = None
        share_with_mlflow(sweep, place)
        assert Store(client, place).content() == whole


def test_many_runs_are_listed_page_by_page(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_book, "LISTED_AT_ONCE", 3)
    sweep = made(tmp_path, trials=(8,), finals=0)
    store.share(sweep)
    assert store.share(sweep) == {"coarse": (8, 0, 0)}


def test_hostile_names_come_through(store: Store, tmp_path: Path) -> None:
    sweep = made(tmp_path, hostile=True)
    store.share(sweep)
    runs = store.runs("<i>digits</i> & </title>🙂")
    run = runs["coarse-00000"]
    assert ":3c:img src:3d:x onerror:3d:alert:28:1:29::3e:" in run.data.params
    assert run.data.params["mixed"] in ("true", "null", "1.5", "é")
    failed = next(run for run in runs.values() if run.info.status == "FAILED")
    assert "</script>" in failed.data.tags["sweep.error"]


def test_another_sweeps_experiment_is_left_alone(store: Store, tmp_path: Path) -> None:
    sweep = made(tmp_path, trials=(4,), finals=0)
    other = store.client.create_experiment("digits")
    store.client.create_run(other, start_time=1, tags={}, run_name="mine")
    with pytest.raises(UserError, match=r"holds other runs\. Choose another name: --name"):
        store.share(sweep)
    assert store.share(sweep, name="second") == {"coarse": (4, 4, 0)}
    assert list(store.runs()) == ["mine"]
    with pytest.raises(UserError, match="can't be called that"):
        store.share(sweep, name=" ")


def test_two_at_once_wait_for_each_other(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = made(tmp_path, trials=(4,), finals=0)
    monkeypatch.setattr(alone, "PATIENCE_SECONDS", 0.0)
    with (
        hold(sweep / "lease-share", "orchestrate share"),
        pytest.raises(UserError, match="is being shared by orchestrate share"),
    ):
        store.share(sweep)


def test_a_folder_can_hold_no_metric_that_begins_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_share, "check_installed", lambda tool: None)
    sweep = made(tmp_path, trials=(4,), finals=0)
    for records in (sweep / "stages/coarse/records").iterdir():
        records.write_text(records.read_text().replace("train/loss", "val"))
    (sweep / "results").rename(tmp_path / "old")
    compact(sweep)
    with pytest.raises(UserError, match="can't keep both 'val' and 'val/accuracy' in a folder"):
        share_with_mlflow(sweep, find_place(str(tmp_path / "runs")))


@real
def test_a_database_takes_a_sweep_and_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, place = made(tmp_path, trials=(4,), finals=0), find_place(str(tmp_path / "x.db"))
    for _ in range(2):
        share_with_mlflow(sweep, place)
    with contextlib.closing(sqlite3.connect(tmp_path / "x.db")) as database:
        (runs,) = database.execute("SELECT count(*) FROM runs WHERE lifecycle_stage = 'active'").fetchone()
    assert runs == 5


@real
def test_what_is_no_place_of_mlflows_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_open, "CONNECT_SECONDS", 0.2)
    with contextlib.closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE mine (x)")
    (tmp_path / "text.db").write_text("not a database, but long enough to be looked at as one\n" * 20)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").touch()
    (tmp_path / "file").touch()
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.create_server(("127.0.0.1", 0)) as gone:
        ports = silent.getsockname()[1], gone.getsockname()[1]
        gone.close()
        for out, words in (
            (f"sqlite:///{tmp_path}/other.db", "holds something else"),
            (f"sqlite:///{tmp_path}/text.db", "is no SQLite database"),
            (f"sqlite:///{tmp_path}/no/x.db", "there is no folder"),
            (f"{tmp_path}/full", "holds something else than runs of MLflow"),
            (f"file://{tmp_path}/file", "is no folder"),
            (f"http://127.0.0.1:{ports[0]}", "did not answer in time"),
            (f"http://127.0.0.1:{ports[1]}", "can't be reached"),
        ):
            with pytest.raises(UserError, match=words), open_place(find_place(out)):
                pass
