"""Compacting by Dask's workers elsewhere: the same tables, and nothing lost where the workers fail."""

from __future__ import annotations

import logging
import math
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dask
import distributed
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from dask_jobqueue.slurm import SLURMJob

from made_sweep import make_sweep
from orchestrator import UserError
from orchestrator.cluster import workers
from orchestrator.cluster.dask_jobs import Place, asked
from orchestrator.cluster.workers import compute_on, dask_client
from orchestrator.commands.results import results
from orchestrator.control import opened
from orchestrator.control.compacting import compact_sweep
from orchestrator.planning.plan import Cost, Phase, Plan, Scale
from orchestrator.planning.validate_results import check_dask, validate_results
from orchestrator.results.compact import compact
from orchestrator.schema import ResultsConfig, SlurmConfig, SweepConfig
from orchestrator.sweep.directory import SweepDirectory

# A scheduler of Dask's and some workers, for as long as standard input is open.
CLUSTER = """
import sys, distributed
with distributed.LocalCluster(
    n_workers=int(sys.argv[1]), threads_per_worker=1, processes=False, protocol="tcp",
    dashboard_address="127.0.0.1:0", host="127.0.0.1",
) as cluster:
    print(cluster.scheduler_address, flush=True)
    sys.stdin.read()
"""


class Cluster:
    """A cluster of Dask's in a process of its own."""

    def __init__(self, count: int, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", CLUSTER, str(count)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(1, tmp_path_factory.mktemp("elsewhere"))
    yield made
    made.end()


def settings(dask: str, **more: Any) -> SweepConfig:
    results = ResultsConfig(dask=dask, least_mb=0.0, wait_seconds=5.0)
    return SweepConfig(name="digits", results=replace(results, **more))


PLAN = Plan(
    uid="a1b2c3", name="my digits", metric="", mode="max", created=0.0, folder="", unit="core",
    phases=(Phase(kind="stage", name="coarse", trials=20, scale=Scale(epochs=3), samples=50),),
    total=Cost(), full_scale_share=None,
)  # fmt: skip


def made(path: Path) -> SweepDirectory:
    return SweepDirectory(make_sweep(path, trials=(20, 8), finals=0))


def tables(directory: SweepDirectory) -> list[dict[str, Any]]:
    files = sorted(directory.results.rglob("*.parquet"))
    return [pq.read_table(path, partitioning=None).to_pydict() for path in files]


def place_of(directory: SweepDirectory, plan: Plan = PLAN) -> Place:
    return Place(
        token=f"my_digits-results-{plan.uid}",
        plan=directory.plan,
        results=directory.results,
        logs=directory.logs / "results",
    )


def test_workers_elsewhere_write_the_same_tables(cluster: Cluster, tmp_path: Path) -> None:
    here, there = made(tmp_path / "here"), made(tmp_path / "there")
    compact(here.path)
    compact_sweep(there, PLAN, settings(cluster.address), {}, cluster.address)
    assert repr(tables(there)) == repr(tables(here))
    before = [path.stat().st_mtime_ns for path in sorted(there.results.rglob("*.parquet"))]
    compact_sweep(there, PLAN, settings(cluster.address), {})
    assert [path.stat().st_mtime_ns for path in sorted(there.results.rglob("*.parquet"))] == before


def test_where_no_scheduler_answers_threads_do_it_unless_it_was_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory, config = made(tmp_path), settings("tcp://127.0.0.1:9", wait_seconds=0.2)
    with pytest.raises(UserError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        compact_sweep(directory, PLAN, config, {}, "tcp://127.0.0.1:9")
    assert not directory.results.exists()
    with caplog.at_level(logging.WARNING):
        compact_sweep(directory, PLAN, config, {})
    assert "so threads do: results.dask: no Dask scheduler answers" in caplog.text
    assert len(tables(directory)) == 4


def test_who_asks_for_a_cluster_by_name_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory, config = made(tmp_path), settings("threads", wait_seconds=0.1)
    monkeypatch.setattr(opened, "open_sweep", lambda _: SimpleNamespace(
        directory=directory, plan=PLAN, config=config))  # fmt: skip
    call = [str(tmp_path), "--format", "csv"]
    refused = CliRunner().invoke(results, [*call, "--dask", "tcp://127.0.0.1:9"])
    assert isinstance(refused.exception, UserError) and "no Dask scheduler" in str(refused.exception)
    refused = CliRunner().invoke(results, [*call, "--dask", "slrm"])
    assert "--dask: 'slrm' is neither threads nor slurm nor an address" in str(refused.exception)
    assert CliRunner().invoke(results, [*call, "--dask", "threads"]).output.startswith("stage,")


def test_little_that_is_new_is_read_by_threads(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory = made(tmp_path)
    compact_sweep(directory, PLAN, settings("tcp://127.0.0.1:9", least_mb=1.0), {})
    assert len(tables(directory)) == 4 and not caplog.text


def test_a_cluster_without_workers_and_one_that_ends(tmp_path: Path) -> None:
    directory, lonely = made(tmp_path), Cluster(0, tmp_path)
    try:
        with (
            pytest.raises(UserError, match="no Dask worker came within"),
            dask_client(lonely.address, place_of(directory), ResultsConfig(wait_seconds=0.1), SlurmConfig()),
        ):
            pass
        with distributed.Client(lonely.address, set_as_default=False, timeout=0.5) as client:
            with pytest.raises(UserError, match="Dask has had no worker for 0 s"):
                compute_on(client, [dask.delayed(int)("1")], patience=0.0)
            threading.Timer(0.2, lonely.end).start()
            with pytest.raises(UserError, match="scheduler was lost"):
                compute_on(client, [dask.delayed(int)("2")], patience=60.0)
    finally:
        lonely.end()


def test_workers_that_see_or_have_something_else_are_refused(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = made(tmp_path)
    place, config = place_of(directory), ResultsConfig(wait_seconds=5.0)
    # The worker is in another folder.
    (tmp_path / "plan.json").write_bytes(directory.plan.read_bytes())
    (tmp_path / "only" / "here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for elsewhere, words in (
        (replace(place, plan=Path("plan.json")), "not see the sweep's files: plan.json is No such file"),
        (replace(place, results=Path("only/here")), "can't write to only/here: it is not writable there"),
    ):
        with (
            pytest.raises(UserError, match=words),
            dask_client(cluster.address, elsewhere, config, SlurmConfig()),
        ):
            pass
    monkeypatch.setattr(workers, "__version__", "0.0.1")
    with (
        pytest.raises(UserError, match=r"has orchestrator [\d.]+\w*, and this process 0\.0\.1"),
        dask_client(cluster.address, place, config, SlurmConfig()),
    ):
        pass


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = made(tmp_path)
    for where, package in (("tcp://127.0.0.1:9", "distributed"), ("slurm", "dask_jobqueue")):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            with pytest.raises(UserError, match=rf"package {package} is missing.*\[dask-cluster\]"):
                compact_sweep(directory, PLAN, settings("threads"), {}, where)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no sbatch, scancel on this machine"):
        compact_sweep(directory, PLAN, settings("threads"), {}, "slurm")


@pytest.mark.parametrize("dask", ["threads", "slurm", "tcp://host:8786", "tls://[::1]:8786"])
def test_where_dask_may_work(dask: str) -> None:
    validate_results(ResultsConfig(dask=dask), "sweep.yaml")


@pytest.mark.parametrize(
    "dask", ["", "thread", "host:8786", "tcp://host", "tcp://host:0", "tcp://host:99999"]
)
def test_where_dask_can_not_work(dask: str) -> None:
    with pytest.raises(UserError, match="neither threads nor slurm nor an address"):
        check_dask(dask, "sweep.yaml", "results.dask")


@pytest.mark.parametrize("wrong", [{"jobs": 0}, {"least_mb": -1.0}, {"wait_seconds": math.nan}])
def test_settings_that_can_not_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"results.{next(iter(wrong))}"):
        validate_results(ResultsConfig(**wrong), "sweep.yaml")


def test_the_jobs_ask_for_what_the_sweep_says(tmp_path: Path) -> None:
    directory = made(tmp_path / "it's 100%")
    slurm = SlurmConfig(
        partition=["gpu", "big"], account="me", gpus_per_task=4, cpus_per_task=3, mem_gb=1.5, timeout_min=90,
        setup=["module load it"], python="/opt/python", driver={"partition": "cpu", "sbatch": {"nice": True}},
    )  # fmt: skip
    place = place_of(directory)
    script = SLURMJob(
        scheduler="tls://host:1", name="w", **asked(place, ResultsConfig(), slurm, {})
    ).job_script()
    lines = script.splitlines()
    wanted = {"--partition=cpu", "--account=me", "--cpus-per-task=3", "--mem=1536M", "--time=90", "--nice"}
    assert {f"#SBATCH {flag}" for flag in wanted} < set(lines)
    assert f"#SBATCH --job-name={place.token}" in lines and "gpu" not in script.replace("/gpu", "")
    assert "module load it" in lines
    (output,) = [line for line in lines if "--output" in line]
    assert "100%" not in output, "sbatch reads patterns in it"
    assert "/opt/python -m distributed" in script and "--nthreads 3" in script


@pytest.mark.slurm
@pytest.mark.usefixtures("slurm")
class TestSlurm:
    """On a real SLURM."""

    @staticmethod
    def config(**more: Any) -> SweepConfig:
        slurm = SlurmConfig(executor="slurm", timeout_min=5, mem_gb=0.5)
        found = settings("slurm", interface="lo", jobs=2, wait_seconds=60.0)
        return replace(found, slurm=replace(slurm, **more))

    @pytest.fixture
    def plan(self) -> Plan:
        """A plan whose jobs are told from those of the tests that run at the same time."""
        return replace(PLAN, uid=uuid.uuid4().hex[:8])

    @staticmethod
    def jobs(plan: Plan) -> list[str]:
        """Return the names of a plan's jobs in the queue."""
        rows = subprocess.check_output(
            ["squeue", "--noheader", "--states=PENDING,RUNNING", "--format=%j"], text=True
        )
        return [name for name in rows.split() if name.startswith(f"my_digits-results-{plan.uid}")]

    def test_jobs_write_the_same_tables_and_are_gone(self, tmp_path: Path, plan: Plan) -> None:
        here, there = made(tmp_path / "here"), made(tmp_path / "there, ünïcode")
        compact(here.path)
        compact_sweep(there, plan, self.config(setup=[f"echo set up >> {tmp_path}/setup"]), {}, "slurm")
        assert repr(tables(there)) == repr(tables(here))
        assert (tmp_path / "setup").read_text().startswith("set up")
        assert self.jobs(plan) == []
        assert not list(there.logs.iterdir()), "logs and certificates are gone"

    def test_jobs_are_gone_after_an_exception_too(self, tmp_path: Path, plan: Plan) -> None:
        directory = made(tmp_path)
        place, config = place_of(directory, plan), self.config()
        with (
            pytest.raises(KeyboardInterrupt),
            dask_client("slurm", place, config.results, config.slurm),
        ):
            assert self.jobs(plan)
            raise KeyboardInterrupt
        assert self.jobs(plan) == []

    def test_what_slurm_refuses_is_said_and_threads_do_it(
        self, tmp_path: Path, plan: Plan, caplog: pytest.LogCaptureFixture
    ) -> None:
        directory, config = made(tmp_path), self.config(partition="nowhere")
        with pytest.raises(UserError, match=r"slurm\.driver: SLURM refuses the jobs of Dask:.*partition"):
            compact_sweep(directory, plan, config, {}, "slurm")
        compact_sweep(directory, plan, config, {})
        assert "so threads do" in caplog.text and len(tables(directory)) == 4
        assert self.jobs(plan) == []
