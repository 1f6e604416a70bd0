"""Any command line as a job: its words, what it tells while it runs, and how it is ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_program import CONFIG, OUTPUT, Runner, made_program
from omegaconf import OmegaConf

from commands import wait_for
from orchestrator.errors import ProgramFailed, StopTrial, UserError
from orchestrator.programs import process
from orchestrator.programs.arguments import arguments, from_snapshot, words
from orchestrator.schema import MetricsConfig
from orchestrator.worker.shortage import out_of_disk, out_of_memory

program = pytest.fixture(made_program)


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
