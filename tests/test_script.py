"""What SLURM is asked for: submitit's parameters, the batch script, paths, environments, checked sections."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import pytest

from commands import SWEEP, orchestrate, write_user_sweep
from orchestrator.cluster.driver import Wake, driver_flags, driver_script
from orchestrator.cluster.script import (
    environment_outside,
    interpreter,
    log_folder,
    outside_of_job,
    parameters,
    script_text,
)
from orchestrator.errors import UserError
from orchestrator.planning.validate_slurm import validate_slurm
from orchestrator.schema import Processes, SlurmConfig


def lines(resources: SlurmConfig, tasks: int = 2) -> set[str]:
    return set(script_text(resources, "token", Path("/logs/token"), tasks).splitlines())


def test_gpus_by_kind_partitions_in_a_list_and_flags_without_a_value() -> None:
    shown = lines(
        SlurmConfig(
            executor="slurm", partition=["a100", "h100"], gpus_per_task=2, gpu_type="a100", exclusive=True,
            cpus_per_task=3, setup=["module load cuda"], constraint="a100|h100",
            sbatch={"nice": True, "mail_user": "me", "exclude": ["n1", "n2"], "reservation": None,
                    "test": False},
        )
    )  # fmt: skip
    assert {
        "#SBATCH --partition=a100,h100", "#SBATCH --gpus-per-node=a100:2", "#SBATCH --exclusive",
        "#SBATCH --nice", "#SBATCH --mail-user=me", "#SBATCH --exclude=n1,n2",
        "#SBATCH --constraint='a100|h100'", "module load cuda", "#SBATCH --array=0-1%1",
    } <= shown  # fmt: skip
    assert not any(word in line for line in shown for word in ("wckey", "reservation", "test", "account"))
    # srun would give the task one core.
    assert any("--cpus-per-task=3" in line for line in shown if line.startswith("srun"))


def test_gpus_are_asked_for_once() -> None:
    resources = SlurmConfig(executor="slurm", gpus_per_task=1, sbatch={"gres": "gpu:a100:1"})
    shown = lines(resources)
    assert "#SBATCH --gres=gpu:a100:1" in shown
    assert not any("gpus-per-node" in line for line in shown)


def test_a_single_task_is_a_plain_job() -> None:
    assert not any("--array" in line for line in lines(SlurmConfig(executor="slurm"), tasks=1))


def test_a_path_of_python_is_quoted_and_a_command_is_not(tmp_path: Path) -> None:
    python = tmp_path / "my env" / "python"
    python.parent.mkdir()
    python.touch()
    assert interpreter(str(python)) == shlex.quote(str(python)) != str(python)
    container = "apptainer exec --nv 'my image.sif' python3"
    assert interpreter(container) == container
    assert interpreter(None) == shlex.quote(sys.executable)


@pytest.mark.parametrize("name", ["plain", "it's ünï, a dir", "50%", "back\\slash", "new\nline"])
def test_logs_have_a_name_that_sbatch_takes_as_it_is(tmp_path: Path, name: str) -> None:
    logs = tmp_path / name / "logs" / "token"
    logs.mkdir(parents=True)
    folder = log_folder(logs)
    assert folder.samefile(logs) and folder == log_folder(logs)
    assert not set("%\\\n") & set(str(folder))
    assert (folder == logs) == (name in ("plain", "it's ünï, a dir"))


def test_what_is_in_the_way_of_the_logs_is_said(tmp_path: Path) -> None:
    logs = tmp_path / "50%" / "logs" / "token"
    logs.mkdir(parents=True)
    alias = log_folder(logs).parent
    alias.unlink()
    alias.symlink_to(tmp_path)
    with pytest.raises(UserError, match=r"in the way.*dir="):
        log_folder(logs)
    alias.unlink()
    alias.write_text("")
    with pytest.raises(UserError, match="can't be made"):
        log_folder(logs)


def test_a_job_that_submits_hands_on_nothing_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    monkeypatch.setenv("SBATCH_ACCOUNT", "mine")
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "2048")
    assert environment_outside()["SLURM_MEM_PER_NODE"] == "2048", "outside of a job it is a person's wish"
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with outside_of_job():
        assert not {"SLURM_JOB_ID", "SLURM_MEM_PER_NODE", "CUDA_VISIBLE_DEVICES"} & set(os.environ)
        assert os.environ["SLURM_CONF"] == "/etc/slurm.conf" and os.environ["SBATCH_ACCOUNT"] == "mine"
    assert os.environ["SLURM_JOB_ID"] == "7" and os.environ["SLURM_MEM_PER_NODE"] == "2048"


def test_a_driver_asks_for_little_and_may_ask_for_something_else() -> None:
    resources = SlurmConfig(
        executor="slurm", partition="a100", account="mine", gpus_per_task=4, timeout_min=1440, mem_gb=500,
        sbatch={"gres": "gpu:4"}, setup=["module load python"],
    )  # fmt: skip
    wake = Wake("after 7 8", ("7", "8"), 60)
    flags = driver_flags("token", wake, resources, Path("/a b"), Path("/a b/log"))
    assert {"--partition=a100", "--account=mine", "--mem=2048M", "--time=30", "--cpus-per-task=1"} <= set(
        flags
    )
    assert {"--dependency=afterany:7?afterany:8", "--begin=now+60", "--requeue", "--chdir=/a b"} <= set(flags)
    assert not any("gpu" in flag or "gres" in flag for flag in flags)
    script = driver_script(resources, Path("/a b"), Path("/a b/log"))
    assert "module load python\n" in script and "advance '/a b' --quiet" in script
    resources.driver = {"partition": ["cpu", "dev"], "timeout_min": 5, "mem_gb": 1, "qos": "low", "setup": [],
                        "sbatch": {"nice": True}}  # fmt: skip
    flags = driver_flags("token", Wake("soon"), resources, Path("/a"), Path("/a/log"))
    assert {"--partition=cpu,dev", "--time=5", "--mem=1024M", "--qos=low", "--nice"} <= set(flags)
    assert not any(flag.startswith(("--dependency", "--begin")) for flag in flags)
    assert "module" not in driver_script(resources, Path("/a"), Path("/a/log"))


@pytest.mark.parametrize(
    ("python", "expected"),
    [
        ("/opt/env/bin/python", "/opt/env/bin/python"),
        ("apptainer exec x.sif python3", shlex.quote(sys.executable)),
    ],
)  # fmt: skip
def test_a_driver_runs_where_slurms_commands_are(python: str, expected: str) -> None:
    script = driver_script(SlurmConfig(executor="slurm", python=python), Path("/a"), Path("/a/log"))
    assert f"exec {expected} -m" in script


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sbatch": {"array": "0-3"}}, "slurm.sbatch.array: can't be changed: the tasks of a stage"),
        ({"sbatch": {"job_name": "x"}}, "slurm.sbatch.job_name: can't be changed"),
        ({"sbatch": {"time": 5}}, "slurm.sbatch.time: has a key of its own. Write slurm.timeout_min"),
        ({"sbatch": {"--mem": "4G"}}, "Write slurm.mem_gb"),
        ({"sbatch": {"p": "gpu"}}, "Write long names"),
        ({"sbatch": {"mail-user": "a", "mail_user": "b"}}, "given twice, as 'mail-user' too"),
        ({"sbatch": {"nice": "a\nb"}}, "is no value of a flag"),
        (
            {"driver": {"partitoin": "cpu"}},
            "slurm.driver: unknown key 'partitoin'. Did you mean 'partition'?",
        ),
        ({"driver": {"gpus_per_task": 1}}, "It can't be another one here"),
        ({"driver": {"timeout_min": "5"}}, "slurm.driver.timeout_min: '5' is not a whole number"),
        ({"driver": {"sbatch": {"time": 5}}}, "Write slurm.driver.timeout_min"),
        ({"on_out_of_memory": {"mem": 64}}, "Did you mean 'mem_gb'?"),
        ({"on_out_of_memory": {"mem_gb": True}}, "is not a number above 0"),
        ({"mem_gb": 8.0, "on_out_of_memory": {"mem_gb": 8}}, "are not more than the 8 GB"),
        ({"gpu_type": "a100"}, "no GPU is asked for"),
        ({"partition": ["a", 1]}, "slurm.partition: ['a', 1] is not text or a list"),
        ({"quiet_minutes": 0.0}, "slurm.quiet_minutes: 0 can't be"),
        ({"max_queued": -1}, "slurm.max_queued"),
    ],
)
def test_what_sbatch_would_refuse_is_refused_at_once(changes: dict[str, object], message: str) -> None:
    config = SlurmConfig(executor="slurm")
    for name, value in changes.items():
        setattr(config, name, value)
    with pytest.raises(UserError) as error:
        validate_slurm(config, "sweep.yaml")
    assert message in str(error.value)


def test_what_is_right_is_taken() -> None:
    validate_slurm(
        SlurmConfig(
            executor="slurm", partition=["a", "b"], mem_gb=8,
            on_out_of_memory={"mem_gb": 16, "trials_at_once": 1},
            driver={"partition": "cpu", "mem_gb": 0.5, "setup": ["module load x"], "sbatch": {"nice": True}},
            sbatch={"reservation": "mine", "mail_type": ["END", "FAIL"]}, quiet_minutes=5, max_queued=10,
        ),
        "sweep.yaml",
    )  # fmt: skip


def test_the_scripts_are_shown_and_nothing_is_written(tmp_path: Path) -> None:
    write_user_sweep(tmp_path, sweep=SWEEP.replace("slurm: {trials_at_once: 4}\n", ""))
    shown = orchestrate(
        "plan",
        "sweep.yaml",
        "slurm=gpu",
        "slurm.on_out_of_memory={mem_gb: 64}",
        "--show-script",
        cwd=tmp_path,
    ).stdout
    for title in ("coarse", "fine", "final", "after out of memory", "driver"):
        assert f"### {title}\n#!/bin/bash" in shown
    assert shown.count("#SBATCH --mem=65536M") == 1
    assert "# sent by: sbatch" in shown and "--dependency=afterany:ARRAY" in shown
    assert not (tmp_path / "sweeps").exists()
    done = orchestrate("plan", "sweep.yaml", "--show-script", cwd=tmp_path, status=2)
    assert "slurm=gpu" in done.stderr


def test_several_processes_for_one_trial() -> None:
    resources = SlurmConfig(executor="slurm", gpus_per_task=1, gpu_type="a100", cpus_per_task=3, mem_gb=8.0)
    together = Processes(nodes=2, per_node=4, gpus_per_node=4)
    shown = script_text(resources, "token", Path("/logs/token"), 1, together)
    assert set(shown.splitlines()) >= {
        "#SBATCH --nodes=2",
        "#SBATCH --ntasks-per-node=4",
        "#SBATCH --gpus-per-node=a100:4",
        "#SBATCH --cpus-per-task=3",
        # of a node, for four processes
        "#SBATCH --mem=32768M",
    }
    assert "--cpus-per-task=3 --kill-on-bad-exit=0 --wait=60" in shown
    alone = Processes(gpus_per_node=1)
    one = script_text(resources, "token", Path("/logs/token"), 1, alone)
    assert one == script_text(resources, "token", Path("/logs/token"), 1)
    assert "ntasks" not in one and "--wait" not in one


def test_scripts_differ_by_phase(tmp_path: Path) -> None:
    write_user_sweep(tmp_path)
    shown = orchestrate(
        "plan", "sweep.yaml", "slurm=gpu", "slurm.trials_at_once=1", "final.nodes=2", "final.gpus_per_node=2",
        "--show-script", cwd=tmp_path,
    ).stdout  # fmt: skip
    by_title = {part.partition("\n")[0]: part for part in shown.split("### ")}
    assert "--ntasks-per-node" not in by_title["coarse"] and "--gpus-per-node=1" in by_title["coarse"]
    assert "--ntasks-per-node=2" in by_title["final"] and "--nodes=2" in by_title["final"]
    assert "--gpus-per-node=2" in by_title["final"]


def test_parameters_are_submitits() -> None:
    from submitit.slurm.slurm import _get_default_parameters

    chosen = parameters(SlurmConfig(executor="slurm", gpus_per_task=1, mem_gb=1.5), "token")
    assert set(chosen) <= set(_get_default_parameters())
    chosen = parameters(SlurmConfig(executor="slurm"), "token", Processes(nodes=2))
    assert set(chosen) <= set(_get_default_parameters())
