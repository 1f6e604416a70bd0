"""What shells complete: by bash itself, and by what its, zsh's and fish's scripts ask and are told."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import CompletionItem, get_completion_class
from click.testing import CliRunner

from commands import write_user_sweep
from made_sweep import make_sweep
from orchestrator.cli import main
from orchestrator.results.compact import compact


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sweep file and two sweeps, the second one newer; one has results."""
    path = tmp_path_factory.mktemp("folder")
    write_user_sweep(path)
    compact(make_sweep(path / "sweeps" / "digits", trials=(4, 2), finals=3, tasks=1))
    make_sweep(path / "sweeps" / "wine", trials=(4,), finals=0, tasks=1)
    os.utime(path / "sweeps" / "digits" / "plan.json", (1, 1))
    (path / "sweeps" / "no_sweep").mkdir()
    for name in ("$(reboot)", "a b", "x;y"):
        (path / "sweeps" / name).mkdir()
        (path / "sweeps" / name / "plan.json").write_text("{}")
    (path / "slurm").mkdir()
    (path / "slurm" / "ours.yaml").write_text("")
    return path


def items(folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> list[CompletionItem[str]]:
    monkeypatch.chdir(folder)
    shell = get_completion_class("bash")
    assert shell is not None
    return shell(main, {}, "orchestrate", "_X").get_completions(list(words[:-1]), words[-1])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["resu"], ["results"]),
        (["results", "--whe"], ["--where"]),
        (["results", ""], ["sweeps/wine", "sweeps/digits"]),
        (["results", "di"], ["sweeps/digits"]),
        (["results", "sweeps/"], ["sweeps/wine", "sweeps/digits"]),
        (["results", "./sweeps/w"], ["./sweeps/wine"]),
        (["status", "sweeps/digits", "--json", ""], []),
        (["run", ""], ["sweep.yaml", "sweeps/wine", "sweeps/digits"]),
        (["plan", "sw"], ["sweep.yaml", "sweeps/wine", "sweeps/digits"]),
        (["results", "sweeps/digits", "--stage", ""], ["coarse", "medium", "final"]),
        (["results", "sweeps/digits", "--stage", "fi"], ["final"]),
        (["results", "--stage", "fi"], []),
        (["results", "sweeps/nowhere", "--stage", ""], []),
        (["results", "sweeps/digits", "--state", "di"], ["diverged"]),
        (["results", "sweeps/digits", "--sort", "obj"], ["objective"]),
        (["results", "sweeps/digits", "--columns", "trial_id,param.o"], ["trial_id,param.optimizer.lr"]),
        (["results", "sweeps/digits", "--where", "opt"], ["optimizer.lr"]),
        (["results", "sweeps/digits", "--top", "3", "--curves", "--columns", "st"], ["stage", "step"]),
        (["results", "sweeps/wine", "--columns", "st"], ["stage"]),
        (["plan", "sweep.yaml", "final.see"], ["final.seeds="]),
        (["plan", "sweep.yaml", "sta"], ["start_from=", "stages."]),
        (["plan", "sweep.yaml", "stages."], ["stages.coarse.", "stages.fine."]),
        (["plan", "sweep.yaml", "stages.coarse.tr"], ["stages.coarse.trials="]),
        (["plan", "sweep.yaml", "nowhere.at.all."], []),
        (["plan", "sweep.yaml", "slurm=o"], ["slurm=ours"]),
        (["plan", "sweep.yaml", "slurm", "=", "g"], ["gpu"]),
        (["plan", "sweep.yaml", "seed=1", "slurm", "="], ["cpu", "gpu", "local", "ours"]),
        (["plan", "sweep.yaml", "stages.fine.sampler=t"], ["stages.fine.sampler=tpe"]),
        (["plan", "nowhere.yaml", "stages."], []),
        (["completion", ""], ["bash", "zsh", "fish"]),
    ],
)
def test_what_is_completed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], expected: list[str]
) -> None:
    found = [item for item in items(folder, monkeypatch, *words) if item.type == "plain"]
    assert [item.value for item in found] == expected


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["status", "slu"], "dir"),
        (["run", "nowhere"], "file"),
        (["advance", "--all", ""], "dir"),
        (["status", "/no/such/folder/"], "dir"),
    ],
)
def test_elsewhere_the_shell_completes_paths(
    folder: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], kind: str
) -> None:
    assert [item.type for item in items(folder, monkeypatch, *words)] == [kind]


def test_what_can_not_be_read_completes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = tmp_path / "sweeps" / "torn"
    (sweep / "results" / "trials" / "stage=a").mkdir(parents=True)
    (sweep / "results" / "trials" / "stage=a" / "data.parquet").write_bytes(b"PAR1")
    (sweep / "plan.json").write_text('{"phases": [{"na')
    (tmp_path / "bad.yaml").write_text("stages: [")
    for words in (
        ["results", "sweeps/torn", "--stage", ""],
        ["results", "sweeps/torn", "--columns", ""],
        ["plan", "bad.yaml", "stages."],
        ["plan", "sweeps", "stages."],
    ):
        assert items(tmp_path, monkeypatch, *words) == []


def script(shell: str) -> str:
    done = CliRunner().invoke(main, ["completion", shell])
    assert done.exit_code == 0, done.output
    return done.stdout


ASK = """
source script.bash
compopt() { echo "compopt $1 $2"; }
COMP_WORDS=(orchestrate "$@"); COMP_CWORD=$#
_orchestrate_completion orchestrate
printf '%s\\n' "${COMPREPLY[@]}"
complete -p orchestrate
"""


def test_bash_itself_completes(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "script.bash").write_text(script("bash"))
    (tmp_path / "ask.bash").write_text(ASK.replace("script.bash", str(tmp_path / "script.bash")))
    code = "from orchestrator.cli import main; main(prog_name='orchestrate')"
    (tmp_path / "orchestrate").write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}" "$@"\n')
    (tmp_path / "orchestrate").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}

    def ask(*words: str) -> list[str]:
        line = ["bash", "--norc", str(tmp_path / "ask.bash"), *words]
        done = subprocess.run(line, cwd=folder, capture_output=True, text=True, env=environment)
        assert done.stderr == "" and done.returncode == 0
        *found, registered = done.stdout.splitlines()
        assert registered.endswith("-F _orchestrate_completion orchestrate")
        return found

    assert ask("results", "sweeps/digits", "--stage", "") == ["coarse", "medium", "final"]
    # No space after what goes on.
    assert ask("plan", "sweep.yaml", "stages.coarse.tr") == ["compopt -o nospace", "stages.coarse.trials="]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_script_is_changed_where_it_must_be_and_is_whole(shell: str, tmp_path: Path) -> None:
    text = script(shell)
    assert {"bash": "nospace", "zsh": "-S ''", "fish": "--max 1"}[shell] in text
    if shutil.which(shell):
        (tmp_path / "script").write_text(text)
        done = subprocess.run([shell, "-n", str(tmp_path / "script")], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("shell", "words", "cword", "answer"),
    [
        ("zsh", "orchestrate results sweeps/digits --stage fi", "4", "plain\nfinal\n_"),
        ("fish", "orchestrate results sweeps/digits --stage fi", "fi", "plain,final"),
        ("fish", "orchestrate results sweeps/digits --columns host,obj", "host,obj", "plain,host,objective"),
    ],
)
def test_zsh_and_fish_are_told_in_their_way(
    folder: Path, monkeypatch: pytest.MonkeyPatch, shell: str, words: str, cword: str, answer: str
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", cword)
    writer = get_completion_class(shell)
    assert writer is not None
    assert writer(main, {}, "orchestrate", "_X").complete().startswith(answer)


def test_a_wrong_shell_is_named() -> None:
    done = CliRunner().invoke(main, ["completion", "tcsh"])
    assert done.exit_code == 2 and "'tcsh' is not one of 'bash', 'zsh', 'fish'" in done.output
