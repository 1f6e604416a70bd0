"""A command line as the job of a sweep: planned, swept, stopped, taken up again, and the example."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import psutil
import pytest
from click.testing import CliRunner
from made_program import Runner, made_program
from made_task import MadeTask
from omegaconf import OmegaConf

import commands
from commands import orchestrate, wait_for
from orchestrator.cli import main
from orchestrator.control.create import freeze_plan, work_out
from orchestrator.programs.run import run_program
from orchestrator.sweep.directory import STAGE, TrialSpec, write_trials
from orchestrator.worker.batch import run_batch

program = pytest.fixture(made_program)
EXAMPLE = Path(__file__).parent.parent / "examples" / "command"


SCRIPT = """
import argparse, math, os, signal, sys, time
parser = argparse.ArgumentParser()
for name in ("lr", "epochs", "out", "resume", "die"):
    parser.add_argument("--" + name)
given = parser.parse_args()
def save(number, frame):
    open(given.out + "/state", "w").write("1")
    sys.exit()
signal.signal(signal.SIGTERM, save)
for epoch in range(int(given.epochs)):
    print(f"epoch {epoch + 1}: score {1 - abs(math.log10(float(given.lr)) + 2) / 10 - 0.1 / (epoch + 1)}")
    if given.die and not given.resume:
        os.kill(int(given.die), signal.SIGTERM)
        time.sleep(60)
"""
SWEEP = """
name: mine
metric: {name: score}
space: {lr: "tag(log, interval(1e-4, 1))"}
stages:
  coarse: {trials: 4, epochs: 1}
  fine: {trials: 2, epochs: 2}
final: {top: 0}
jobs:
  command: "'{python}' -S my_train.py --lr {lr} --epochs {epochs} --out {checkpoint_dir} --die {die}"
  config: {lr: 0.1, epochs: 1, die: null}
  scale: {epochs: epochs}
  metrics: {output: {step: 'epoch %', score: score %}}
  resume: {when: state, add: --resume yes}
slurm: {trials_at_once: 2}
"""


def test_a_sweep_over_a_plain_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "it's é here"
    commands.write_user_sweep(folder, train=SCRIPT, sweep=SWEEP)
    monkeypatch.chdir(folder)
    freeze_plan(work_out(Path("sweep.yaml"), []))
    # The script runs as it was when the sweep was planned.
    (folder / "my_train.py").write_text("raise SystemExit('changed')")
    orchestrate("run", "sweeps/mine", cwd=folder)
    commands.assert_finished(folder / "sweeps" / "mine", 6)
    trials = pd.read_parquet(folder / "sweeps" / "mine" / "results" / "trials")
    assert trials.loc[trials["stage"] == "coarse", "metric.score"].max() <= 0.9
    curves = pd.read_parquet(folder / "sweeps" / "mine" / "results" / "curves")
    assert curves.groupby("stage")["step"].max().to_dict() == {"coarse": 1, "fine": 2}


def planned_task(tmp_path: Path, train: str, *overrides: str) -> MadeTask:
    """Plan a sweep over a script, with one trial in its first task."""
    file = commands.write_user_sweep(tmp_path, train=train, sweep=SWEEP)
    planned = work_out(file, [f"dir={tmp_path}/s", *overrides])
    freeze_plan(planned)
    folder = planned.directory.phase(STAGE, "coarse")
    write_trials(folder.trials, [TrialSpec(trial_id="a", setting_id="a", params={"lr": 0.01}, seed=0)])
    task = MadeTask(planned.directory, folder)
    task.submit(1, ["a"])
    return task


def test_a_program_does_not_outlive_its_task(tmp_path: Path) -> None:
    train = "import os, time; open('pid.new', 'w').write(str(os.getpid()))\n"
    train += "os.rename('pid.new', 'pid'); time.sleep(60)"
    task = planned_task(tmp_path, train)
    code = "from orchestrator.worker.task import Task\n"
    code += f"Task({str(task.directory.path)!r}, 'stage', 'coarse', 1, 0)()"
    run = subprocess.Popen([sys.executable, "-c", code])
    wait_for((tmp_path / "pid").exists, 60, "the program's start")
    program = psutil.Process(int((tmp_path / "pid").read_text()))
    run.kill()
    run.wait()

    def gone() -> bool:
        try:
            return program.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    wait_for(gone, 30, "the program's end")


def test_a_task_that_is_preempted_takes_its_program_up_again(tmp_path: Path) -> None:
    task = planned_task(tmp_path, SCRIPT, f"jobs.config.die={os.getpid()}")
    before = os.getcwd()
    with pytest.raises(SystemExit):
        run_batch(task.directory, "coarse", 1, 0)
    assert task.outcomes() == {}
    assert (task.folder.checkpoints("a") / "state").read_text() == "1"
    run_batch(task.directory, "coarse", 1, 0)
    assert task.outcomes()["a"]["state"] == "completed"
    assert task.outcomes()["a"]["metrics"] == {"score": pytest.approx(0.9)}
    assert os.getcwd() == before


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("--lr {lr}", "--lr {lrr}", "jobs.command: {lrr} is not in the job's config. Did you mean 'lr'?"),
        ("--lr {lr}", "--lr 1", "space.lr: it is searched, but the command never sees it. Write {lr} in"),
        ("--epochs {epochs}", "", "stages.coarse.epochs: it is written to 'epochs', but the command"),
        ("{epochs: epochs}", "{epochs: null}", "stages.coarse.epochs: a command can't take it"),
        ("'{python}'", "pyhton", "jobs.command: there is no program 'pyhton'. Did you mean 'python"),
        ("'{python}'", "my_train.py", "jobs.command: there is no program 'my_train.py'. The file of this"),
        ("'{python}' -S my_train", "'{python}' my_trian", "jobs.command: there is no file"),
        ("--die {die}", "&& echo", "jobs.command: `&&` is for a shell, and there is none between."),
        ("'{python}'", "'{python}", "is no command line: no closing quotation"),
        ("  command:", "  _target_: my_train.train\n  command:", "the job has both a function"),
        ("score: score %", "score: score", "jobs.metrics.output.score: 'score' has 0 groups, where one"),
        ("score: score %", "acc: acc %", "jobs.metrics.output: the sweep's metric 'score' is not among them"),
        (", score: score %", "", "jobs.metrics: there is no place to find the command's metrics."),
        ("output: {", "result: first, output: {", "jobs.metrics.result: 'first' is not known"),
        ("output: {", "outputs: {", "jobs.metrics.outputs: unknown key 'outputs'. Did you mean 'output'?"),
        ("output: {", "step: epoch, output: {", "jobs.metrics.step: is for a file of metrics, and there"),
        (", add: --resume yes", "", "jobs.resume.add: needs a value. Both are needed"),
        ("{lr} --e", "{config_file} --e", "jobs.config_file: needs a value. Name the file of {config_file}"),
        ("  resume:", "  config_file: a/b.json\n  resume:", "jobs.config_file: 'a/b.json' is no name of a"),
        ("  resume:", "  config_file: b.json\n  resume:", "jobs.config_file: the command is not told of it"),
        ("  resume:", "  environment: {A: {lr}}\n  resume:", "jobs.environment.A: {'lr': None} is no text"),
        ("command: ", "predict: a.b #", "jobs._target_: needs a value"),
        ("command: ", "_target_: my_train.save #", "jobs.metrics: is for a command (jobs.command), and"),
    ],
)  # fmt: skip
def test_a_command_that_can_not_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, message: str
) -> None:
    assert old in SWEEP
    commands.write_user_sweep(tmp_path, train=SCRIPT, sweep=SWEEP.replace(old, new, 1))
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["plan", "sweep.yaml", "--dry-run"])
    assert result.exit_code == 2, result.output
    assert message in result.output.replace("\n", " "), result.output


def test_parameters_reach_a_command_by_other_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for old, new in (
        ("--lr {lr}", "--conf {config_file}"),
        ("--lr {lr}", "--lr {tied_lr}"),
        ("--lr {lr}", ""),
        ("--lr {lr}", "--lr {half}"),
    ):
        text = SWEEP.replace(old, new).replace("lr: 0.1,", "lr: 0.1, tied_lr: 1, half: '${lr}',")
        more = {
            "--conf {config_file}": "  config_file: c.yaml\n",
            "--lr {tied_lr}": "tied: {tied_lr: 2 * lr}\n",
            "": "  environment: {LR: '{lr}'}\n",
            "--lr {half}": "  limits: {}\n",
        }[new]
        text = text.replace("  resume:", f"{more}  resume:") if more[0] == " " else text + more
        commands.write_user_sweep(tmp_path, train=SCRIPT, sweep=text)
        result = CliRunner().invoke(main, ["plan", "sweep.yaml", "--dry-run"])
        assert result.exit_code == 0, result.output


def test_a_program_of_the_cluster_need_not_be_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = SWEEP.replace("'{python}'", "there-only")
    on_cluster = text.replace(
        "trials_at_once: 2", "executor: slurm, setup: [module load x], cpus_per_task: 1"
    )
    for sweep, status in ((text, 2), (on_cluster, 0)):
        commands.write_user_sweep(tmp_path, train=SCRIPT, sweep=sweep)
        result = CliRunner().invoke(main, ["plan", "sweep.yaml", "--dry-run"])
        assert result.exit_code == status, result.output


def test_scripts_in_any_language_are_part_of_the_snapshot(tmp_path: Path) -> None:
    (tmp_path / "fit.sh").write_text("echo epoch 1 score 0.5\n")
    (tmp_path / "sweep.yaml").write_text(SWEEP.replace("'{python}' -S my_train.py", "sh fit.sh"))
    planned = work_out(tmp_path / "sweep.yaml", [f"dir={tmp_path}/s"])
    freeze_plan(planned)
    assert (planned.directory.snapshot / "fit.sh").is_file()


def test_the_example(program: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    planned = work_out(EXAMPLE / "sweep.yaml", ["dir=/nowhere"])
    own = OmegaConf.create({**planned.config.jobs.config, "lr": 0.03, "epochs": 2})

    def run() -> dict[str, float]:
        return run_program(planned.config.jobs, planned.config.metric, EXAMPLE, own, program.trial)

    first = run()
    assert first["accuracy"] > 50
    own.epochs = 3
    # With what it has saved there, it goes on.
    assert run()["loss"] < first["loss"]
    assert [step for step, _ in program.trial.rows] == [1, 2, 3]
