"""Any command line as a job: its words, its metrics, how it is ended and taken up, and a whole sweep."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from made_task import MadeTask
from omegaconf import OmegaConf

import commands
from commands import orchestrate, wait_for
from orchestrator.cli import main
from orchestrator.control.create import freeze_plan, work_out
from orchestrator.errors import ProgramFailed, StopTrial, UserError
from orchestrator.programs import events, process
from orchestrator.programs.arguments import arguments, from_snapshot, words
from orchestrator.programs.files import Tailed
from orchestrator.programs.patterns import Matched, Row, compiled
from orchestrator.programs.run import run_program
from orchestrator.schema import JobConfig, MetricConfig, MetricsConfig
from orchestrator.sweep.directory import STAGE, TrialSpec, write_trials
from orchestrator.worker.batch import run_batch
from orchestrator.worker.shortage import out_of_disk, out_of_memory
from orchestrator.worker.task import Task

EXAMPLE = Path(__file__).parent.parent / "examples" / "command"
OUTPUT = MetricsConfig(output={"step": "epoch %", "acc": "acc %"})
CONFIG: dict[str, Any] = {
    "lr": 1e-5, "name": "it's \"é\" {x}", "flag": True, "none": None, "sizes": [1, 2],
    "opt": {"momentum": 0.9},
}  # fmt: skip


@dataclass
class MadeTrial:
    """Takes reports, and is abandoned at a step."""

    checkpoint_dir: Path
    stop_at: int | None = None
    id: str = "coarse-00001"
    stage: str = "coarse"
    seed: int = 7
    leads: bool = True
    rows: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    alive_count: int = 0

    def report(self, step: int, metrics: Mapping[str, Any]) -> None:
        self.rows.append((step, dict(metrics)))
        if step == self.stop_at:
            raise StopTrial("enough")

    def alive(self) -> None:
        self.alive_count += 1


@dataclass
class Runner:
    """Runs Python code as a trial's program."""

    trial: MadeTrial
    snapshot: Path

    def __call__(
        self, code: str, metrics: MetricsConfig = OUTPUT, more: Sequence[str] = (), **job: Any
    ) -> dict[str, float]:
        command = job.pop("command", [sys.executable, "-S", "-c", code.replace("{", "{{"), *more])
        made = JobConfig(_target_=None, command=command, metrics=metrics, **job)
        return run_program(
            made, MetricConfig(name="acc"), self.snapshot, OmegaConf.create(CONFIG), self.trial
        )


@pytest.fixture
def program(tmp_path: Path) -> Runner:
    (tmp_path / "it's a «trial»").mkdir()
    (tmp_path / "snapshot").mkdir()
    return Runner(MadeTrial(tmp_path / "it's a «trial»"), tmp_path / "snapshot")


# Words


def test_words_are_those_of_a_shell_or_of_a_list() -> None:
    assert words("python 'my train.py' --name \"a b\"") == ["python", "my train.py", "--name", "a b"]
    assert words(["python", "my train.py", 3, True]) == ["python", "my train.py", "3", "True"]
    for wrong, message in (
        ("python 'train.py", "no closing quotation"),
        ("", "there is no command"),
        ([], "there is no command"),
        (["python", {"lr": None}], "put words with braces in quotation marks"),
        ({"python": None}, "is no command"),
    ):
        with pytest.raises(UserError) as caught:
            words(wrong)
        assert message in str(caught.value) or message.capitalize() in str(caught.value)


@given(st.lists(st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="{}\0"), min_size=1)))
def test_any_value_is_one_word_of_the_command(values: list[str]) -> None:
    kept = [value for value in values if "${" not in value]
    config = OmegaConf.create({f"v{i}": value for i, value in enumerate(kept)})
    texts = [f"--v={{v{i}}}" for i in range(len(kept))]
    assert arguments(texts, config, {}, "key") == [f"--v={value}" for value in kept]


def test_values_fill_the_braces() -> None:
    def made(*command: str) -> list[str]:
        return arguments(command, OmegaConf.create(CONFIG), {"seed": "7", "lr": "never"}, "jobs.command")

    assert made("--lr={lr}", "{name}", "{flag}", "{seed}") == ["--lr=1e-05", CONFIG["name"], "true", "7"]
    assert made("{sizes}", "{opt}", "{opt.momentum}x") == ["[1, 2]", '{"momentum": 0.9}', "0.9x"]
    assert made('{{"a": {lr}}}', "{}", "}") == ['{"a": 1e-05}', "{}", "}"]
    # What is null is left out with its flag, and nothing else is.
    assert made("a", "--n", "{none}", "b", "--n={none}", "c", "{none}") == ["a", "b", "c"]
    assert made("--quiet=1", "{none}", "--n", "x{none}", "d") == ["--quiet=1", "--n", "d"]
    with pytest.raises(UserError, match=r"jobs.command: \{nothing\} has no value"):
        made("{nothing}")


def test_scripts_come_from_the_snapshot(tmp_path: Path) -> None:
    for name in ("train.py", "run", "data.csv", "a b.sh"):
        (tmp_path / name).write_text("")
    command = ["./run", "train.py", "a b.sh", "data.csv", "run", "/abs/train.py", "no.py", "../x.py"]
    inside = [str(tmp_path / name) for name in ("run", "train.py", "a b.sh")]
    assert from_snapshot(command, tmp_path) == [*inside, *command[3:]]


# Metrics


def rows_of(patterns: dict[str, str], text: str) -> list[Row]:
    matched = Matched(compiled(patterns, "key"))
    return [row for line in text.splitlines() for row in matched.line(line)] + list(matched.rest())


def test_metrics_are_matched_in_the_output() -> None:
    text = "epoch 1\nloss 0.5 acc 50%\nepoch 2: loss=1e-3\nsome acc 6.5e1%\nloss nan acc -inf\nepoch 4"
    rows = rows_of({"step": "epoch %", "loss": "loss[ =]%", "acc": r"acc %\%?"}, text)
    assert str(rows) == str(
        [(1, {"loss": 0.5, "acc": 50.0}), (2, {"loss": 1e-3, "acc": 65.0}),
         (2, {"loss": float("nan"), "acc": float("-inf")})]
    )  # fmt: skip
    # Without a step they are counted by who reports them; what comes twice begins another row.
    assert rows_of({"a": "a=%", "b": "b=%"}, "a=1\na=2\nb=3\nb=4") == [
        (None, {"a": 1.0}), (None, {"a": 2.0, "b": 3.0}), (None, {"b": 4.0}),
    ]  # fmt: skip
    assert rows_of({"a": r"(\d+) of"}, "12 of 30") == [(None, {"a": 12.0})]


@given(st.floats(allow_nan=False), st.sampled_from(["{!r}", "{:.3e}", "{:+f}", "{:.0f}"]))
def test_a_per_cent_sign_is_any_number(number: float, form: str) -> None:
    text = form.format(number)
    assert rows_of({"m": "m: %,"}, f"m: {text}, and more") == [(None, {"m": float(text)})]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("acc (", "is no regular expression"),
        ("accuracy", "has 0 groups, where one belongs"),
        ("(a|b) %", "has 2 groups, where one belongs"),
    ],
)
def test_a_pattern_that_holds_no_number(pattern: str, message: str) -> None:
    with pytest.raises(UserError, match=r"key.val/acc: ") as caught:
        compiled({"val/acc": pattern}, "key")
    assert message in str(caught.value)


def test_a_file_is_read_while_it_grows(tmp_path: Path) -> None:
    lines = tmp_path / "metrics.jsonl"
    tailed = Tailed(lines)
    assert list(tailed.look()) == []
    lines.write_text(
        '{"epoch": 1, "acc": 0.5, "val": {"loss": 2}, "name": "x", "on": true}\nrubbish\n{"epoch": 2, "a'
    )
    assert list(tailed.look()) == [(1, {"acc": 0.5, "val/loss": 2.0})]
    assert list(tailed.look()) == []
    with open(lines, "a") as file:
        file.write('cc": "0.75"}\n{"acc": NaN}')
    assert list(tailed.look()) == [(2, {"acc": 0.75})]
    # The last line may lack its end when the program has ended.
    assert str(list(tailed.rest())) == "[(None, {'acc': nan})]"
    assert list(tailed.rest()) == []
    lines.write_text('{"acc": 1}\n')
    assert list(tailed.look()) == [(None, {"acc": 1.0})]


def test_a_table_is_read_while_it_grows(tmp_path: Path) -> None:
    table = tmp_path / "metrics.csv"
    tailed = Tailed(table, step="epoch")
    table.write_bytes('\ufeffstep,epoch,"val, acc",note\r\n10,1,0.5,"a, b"\r\n20,2,'.encode())
    assert list(tailed.look()) == [(1, {"val, acc": 0.5})]
    with open(table, "a") as file:
        file.write(',bad\nstep,epoch,"val, acc",note\n\n30,3,0.75')
    assert list(tailed.look()) == []
    assert list(tailed.rest()) == [(3, {"val, acc": 0.75})]


def test_a_file_that_is_one_json_text(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    tailed = Tailed(path)
    path.write_text(json.dumps({"test": {"acc": 0.5}}, indent=2))
    assert list(tailed.look()) == []
    assert list(tailed.rest()) == [(None, {"test/acc": 0.5})]


def test_tensorboard_files_are_read_while_they_grow(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    def write(writer: Any, step: int, **values: float) -> None:
        found = [
            Summary.Value(tag=tag.replace("_", "/"), simple_value=value) for tag, value in values.items()
        ]
        writer.add_event(Event(step=step, wall_time=step, summary=Summary(value=found)))
        writer.flush()

    source = events.Events(tmp_path / "runs")
    assert list(source.look()) == []
    first = EventFileWriter(str(tmp_path / "runs"))
    write(first, 1, val_acc=0.25, loss=2.0)
    assert list(source.look()) == [(1, {"val/acc": 0.25, "loss": 2.0})]
    assert list(source.look()) == []
    write(first, 2, val_acc=0.5)
    first.close()
    # A second leg begins again at step 2, in a file of its own; another folder is a run with its name.
    second, other = (
        EventFileWriter(str(tmp_path / "runs"), filename_suffix=".2"),
        EventFileWriter(str(tmp_path / "runs/test")),
    )
    write(second, 2, val_acc=0.75)
    write(other, 2, val_acc=1.0)
    second.close()
    other.close()
    assert [*source.look(), *source.rest()] == [(2, {"val/acc": 0.75, "test/val/acc": 1.0})]


def test_without_tensorboard_the_plan_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "PACKAGE", "tensorboard_that_is_not_there")
    with pytest.raises(UserError, match=r"jobs.metrics.tensorboard: .*pip install"):
        events.check_installed()


# Running


def test_a_program_gets_its_values_and_tells_its_metrics(program: Runner) -> None:
    code = """
import json, os, sys
config = json.load(open(sys.argv[2]))
assert sys.argv[1] == config["name"] == os.environ["NAME"], sys.argv
assert "GONE" not in os.environ
for epoch in (1, 2):
    print("epoch", epoch, "acc", epoch / 4)
open(sys.argv[3] + "/done", "w").write(os.environ["SEED"])
"""
    os.environ["GONE"] = "1"
    metrics = program(
        code, more=["{name}", "{config_file}", "{checkpoint_dir}"], config_file="config.json",
        environment={"NAME": "{name}", "SEED": "{seed}", "GONE": None},
    )  # fmt: skip
    assert metrics == {"acc": 0.5}
    assert program.trial.rows == [(1, {"acc": 0.25}), (2, {"acc": 0.5})]
    assert (program.trial.checkpoint_dir / "done").read_text() == "7"


def test_the_best_step_where_that_is_wanted(program: Runner) -> None:
    code = "for e, a in enumerate([0.1, float('nan'), 0.9, 0.3]): print('epoch', e, 'loss', e, 'acc', a)"
    output = {**OUTPUT.output, "loss": "loss %"}
    assert program(code, MetricsConfig(output=output, result="best")) == {"acc": 0.9, "loss": 2.0}
    assert program(code, MetricsConfig(output=output)) == {"acc": 0.3, "loss": 3.0}


def test_metrics_from_a_file_and_a_leftover_of_another_attempt(program: Runner) -> None:
    (program.trial.checkpoint_dir / "m.jsonl").write_text('{"acc": 9}\n')
    rows = '{"acc": 1}\\n{"epoch": 3, "acc": 0.5}'
    code = f"import sys; open(sys.argv[1] + '/m.jsonl', 'w').write('{rows}')"
    assert program(code, MetricsConfig(file="m.jsonl"), ["{checkpoint_dir}"]) == {"acc": 0.5}
    assert program.trial.rows == [(1, {"acc": 1.0}), (3, {"acc": 0.5})]


def failure(run: Callable[[], object]) -> str:
    with pytest.raises(ProgramFailed) as caught:
        run()
    return str(caught.value)


def test_a_program_that_fails_shows_its_last_lines(program: Runner) -> None:
    code = "print('acc 1'); print('\\x1b[31mred\\x1b[0m\\x00'); [print('line', i) for i in range(20)]; 1 / 0"
    message = failure(lambda: program(code))
    assert message.startswith(f"{Path(sys.executable).name} ended with status 1; its last lines:\n")
    assert message.endswith("ZeroDivisionError: division by zero")
    assert "line 19" in message and "line 2\n" not in message
    assert "\x1b" not in failure(lambda: program("print('\\x1b[31mred\\x1b[0m \\x00'); raise SystemExit(3)"))
    assert failure(lambda: program("import os; os.abort()")).endswith(
        "SIGABRT; its last lines:\n(it printed nothing)"
    )


def test_a_program_that_is_not_there(program: Runner, tmp_path: Path) -> None:
    assert "can't be started: no such file" in failure(lambda: program("", command="no-such-program {lr}"))
    (tmp_path / "plain").write_text("echo\n")
    assert "can't be started: permission denied" in failure(
        lambda: program("", command=[str(tmp_path / "plain")])
    )


def test_what_it_ran_short_of_is_known(program: Runner) -> None:
    for code, memory, disk in (
        ("import os; os.kill(os.getpid(), 9)", True, False),
        ("raise SystemExit('torch.OutOfMemoryError: CUDA out of memory. Tried')", True, False),
        ("raise SystemExit('OSError: [Errno 28] No space left on device')", False, True),
        ("raise SystemExit('wrong')", False, False),
    ):
        with pytest.raises(ProgramFailed) as caught:
            program(code)
        assert (out_of_memory(caught.value), out_of_disk(caught.value)) == (memory, disk), code


def test_a_program_that_gives_no_metric(program: Runner) -> None:
    message = failure(lambda: program("print('epoch 1 Acc 0.5')"))
    assert "the program's last lines:\nepoch 1 Acc 0.5\n" in message
    assert message.endswith("gave no 'acc': no line of its output matches 'acc %'; there is no metric at all")
    both = MetricsConfig(output={"loss": "loss %"}, file="m.csv")
    message = failure(lambda: program("print('loss 3')", both))
    assert message.endswith("it ended well, but gave no 'acc': m.csv has none; there is 'loss'")
    # Of several processes one tells the metrics.
    program.trial.leads = False
    assert program("print('nothing')") == {}


def test_output_of_every_kind(program: Runner) -> None:
    line = "b'\\n\\xff epoch 1 \\x1b[32macc\\x1b[0m 0.5\\r'"
    rubbish = f"import os, sys; sys.stdout.buffer.write(bytes(range(256)) * 2000 + {line})"
    assert program(rubbish) == {"acc": 0.5}
    many = "print('\\n'.join(f'line {i}' for i in range(100_000))); print('epoch 2 acc 0.25', end='')"
    assert program(many) == {"acc": 0.25}
    closed = "import os, time; print('acc 1', flush=True); os.closerange(1, 3); time.sleep(0.1); os._exit(5)"
    assert "status 5" in failure(lambda: program(closed))


def test_a_step_ends_a_program_that_is_not_worth_it(program: Runner) -> None:
    program.trial.stop_at = 2
    code = (
        "import time\nfor e in range(1, 9): print('epoch', e, 'acc', e, flush=True); time.sleep(60 * (e > 2))"
    )
    began = time.monotonic()
    with pytest.raises(StopTrial):
        program(code)
    assert program.trial.rows[-1] == (2, {"acc": 2.0})
    assert time.monotonic() - began < 60


def test_silence_is_no_sign_of_life(program: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.programs.told._ALIVE_SECONDS", 0.0)
    monkeypatch.setattr(process, "LOOK_SECONDS", 0.02)
    program("import time; print('acc 1', flush=True); time.sleep(0.3)")
    assert program.trial.alive_count == 1


# Ending: in a process of its own, with a group of its own, as a trial has one

DRIVER = """
import json, sys
from pathlib import Path
from omegaconf import OmegaConf
from orchestrator.programs import process
from orchestrator.programs.run import run_program
from orchestrator.schema import JobConfig, MetricConfig, MetricsConfig, ResumeConfig

process.GRACE_SECONDS = float(sys.argv[3])

class Trial:
    id, stage, seed, leads, checkpoint_dir = "t", "s", 0, True, Path(sys.argv[1])
    def report(self, step, metrics):
        with open(self.checkpoint_dir / "reports", "a") as file:
            print(step, json.dumps(metrics), file=file)
    def alive(self): pass

job = JobConfig(
    _target_=None, command=json.loads(sys.argv[2]),
    metrics=MetricsConfig(output={"acc": "acc %"}, result="best"),
    resume=ResumeConfig(when="s*.txt", add="--resume {checkpoint_dir}/state.txt"),
)
print(run_program(job, MetricConfig(name="acc"), Path(), OmegaConf.create({}), Trial()))
"""
SAVES = """
import signal, sys, time
def save(number, frame):
    open(sys.argv[1] + "/state.txt", "w").write("3")
    print("acc 0.75", flush=True)
    sys.exit(1)
signal.signal(signal.SIGTERM, save)
if "--resume" in sys.argv:
    print("resumed from", open(sys.argv[-1]).read(), "acc 0.5")
    sys.exit()
print("acc 0.25", flush=True)
time.sleep(60)
"""


def drive(folder: Path, command: list[str], grace: float = 30) -> subprocess.Popen[str]:
    """Start a trial's process."""
    given = [sys.executable, "-c", DRIVER, str(folder), json.dumps(command), str(grace)]
    return subprocess.Popen(given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0)


def test_a_request_to_end_is_handed_on_and_the_next_leg_resumes(tmp_path: Path) -> None:
    # A shell between would die of the request alone.
    script = '"$0" -S -c "$1" "$2" "$@"; true'
    command = ["sh", "-c", script, "{python}", SAVES.replace("{", "{{"), "{checkpoint_dir}"]
    reports = tmp_path / "reports"
    leg = drive(tmp_path, command)
    wait_for(reports.exists, 60, "the first report")
    leg.send_signal(signal.SIGTERM)
    _, error = leg.communicate(timeout=60)
    # As any trial that the cluster ends, it has no outcome.
    assert leg.returncode == -signal.SIGTERM, error
    assert (tmp_path / "state.txt").read_text() == "3"
    assert reports.read_text() == '1 {"acc": 0.25}\n2 {"acc": 0.75}\n'
    leg = drive(tmp_path, command)
    output, error = leg.communicate(timeout=60)
    # Steps are counted on, and the best of both legs is the result.
    assert (leg.returncode, output.splitlines()) == (0, ["resumed from 3 acc 0.5", "{'acc': 0.75}"]), error
    assert reports.read_text().splitlines()[-1] == '3 {"acc": 0.5}'


def test_nothing_that_it_started_is_left(tmp_path: Path) -> None:
    # It goes on writing when the program itself has ended, and ignores the request to end.
    child = "import os, signal, time; signal.signal(15, signal.SIG_IGN)\nfor _ in range(6000):\n"
    child += "  time.sleep(0.01)\n  try: os.write(1, b'still here\\n')\n  except OSError: pass"
    code = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-S", "-c", {child!r}])
open(sys.argv[1] + "/pid", "w").write(str(child.pid))
print("acc 1", flush=True)
time.sleep(0.3)
"""
    leg = drive(tmp_path, [sys.executable, "-S", "-c", code.replace("{", "{{"), "{checkpoint_dir}"], 0.3)
    output, error = leg.communicate(timeout=60)
    assert leg.returncode == 0, error
    assert output.endswith("{'acc': 1.0}\n")
    with contextlib.suppress(psutil.NoSuchProcess):
        # Where nobody asks for its exit status, that is all that is left of it.
        assert psutil.Process(int((tmp_path / "pid").read_text())).status() == psutil.STATUS_ZOMBIE


# In a sweep

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
    code = "from orchestrator.worker.batch import run_batch\nfrom orchestrator.worker.task import Task\n"
    code += f"run_batch(Task({str(task.directory.path)!r}, 'stage', 'coarse', 1, 0))"
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
        run_batch(Task(str(task.directory.path), STAGE, "coarse", 1, 0))
    assert task.outcomes() == {}
    assert (task.folder.checkpoints("a") / "state").read_text() == "1"
    run_batch(Task(str(task.directory.path), STAGE, "coarse", 1, 0))
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
