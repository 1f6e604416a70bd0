"""cron's tables: what the line says, and that the rest of the table stays as it is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from commands import orchestrate, write_user_sweep
from orchestrator.control import cron
from orchestrator.control.cron import CRONTAB, SCRONTAB, Entry, crontab_block, install, remove, scrontab_block
from orchestrator.errors import UserError
from orchestrator.schema import SlurmConfig

OTHERS = "# my own\nMAILTO=me\n5 4 * * * /bin/others-line 100\\% '#' \n"

# A table in a file, as crontab has it; it can be told to be disabled, or to be changed behind one's back.
STAND_IN = f"""#!{sys.executable}
import os, sys
from pathlib import Path
table = Path(os.environ["TABLES"]) / Path(sys.argv[0]).name
if os.environ.get("DISABLED") == table.name:
    sys.exit(f"{{table.name}} is disabled on this cluster")
if sys.argv[1] == "-l":
    if not table.exists():
        sys.exit("no crontab for me")
    sys.stdout.buffer.write(table.read_bytes())
else:
    assert sys.argv[1] in ("-", "/dev/stdin"), sys.argv
    text = sys.stdin.buffer.read()
    assert text.endswith(b"\\n") or not text, "cron ignores a last line that does not end"
    table.write_bytes(text)
"""


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of the tables that stand-ins for both commands keep."""
    folder = tmp_path / "tables"
    folder.mkdir()
    for name in (CRONTAB, SCRONTAB):
        (folder / "bin").mkdir(exist_ok=True)
        (folder / "bin" / name).write_text(STAND_IN)
        (folder / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("TABLES", str(folder))
    return folder


def run_by_cron(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a line's command as cron does: % as a line break unless escaped, sh, and next to no environment."""
    command = line.split(" ", 5)[5]
    assert "%" not in command.replace("\\%", ""), "a bare % would end the command"
    bare = {"HOME": str(folder), "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"}
    return subprocess.run(
        ["/bin/sh", "-c", command.replace("\\%", "%")], env=bare, cwd=folder, capture_output=True, text=True
    )


def command_of(block: str) -> str:
    return next(line for line in block.splitlines() if line and not line.startswith("#"))


@pytest.mark.parametrize("table", [CRONTAB, SCRONTAB])
def test_the_rest_of_a_table_is_never_touched(tmp_path: Path, tables: Path, table: str) -> None:
    entry, other = Entry(directory=tmp_path / "50% ü"), Entry(directory=tmp_path / "50% ü" / "other")
    (tables / table).write_bytes(OTHERS.encode() + b"# \xff latin\n")
    install(entry, table)
    install(other, table)
    once = (tables / table).read_bytes()
    assert once.startswith(OTHERS.encode() + b"# \xff latin\n")
    install(entry, table)
    assert (tables / table).read_bytes() == once, "installed twice, it stands there once"
    install(Entry(directory=entry.directory, minutes=10), table)
    text = (tables / table).read_text(errors="replace")
    assert text.count("*/10 * * * *") == 1 and text.count("*/5 * * * *") == 1
    assert cron.tables_with(entry.directory) == [table]
    assert remove(entry, table) and not remove(entry, table)
    assert remove(other, table)
    assert (tables / table).read_bytes() == OTHERS.encode() + b"# \xff latin\n"


def test_no_table_yet_is_an_empty_one(tmp_path: Path, tables: Path) -> None:
    install(Entry(directory=tmp_path), CRONTAB)
    assert (tables / CRONTAB).read_text() == crontab_block(Entry(directory=tmp_path))
    assert remove(Entry(directory=tmp_path), CRONTAB)
    assert (tables / CRONTAB).read_text() == ""


def test_a_last_line_that_does_not_end_stays_a_line_of_its_own(tmp_path: Path, tables: Path) -> None:
    (tables / CRONTAB).write_text("1 1 * * * mine")
    install(Entry(directory=tmp_path), CRONTAB)
    assert (tables / CRONTAB).read_text().startswith("1 1 * * * mine\n# orchestrate begins")


def test_a_damaged_block_is_left_to_a_person(tmp_path: Path, tables: Path) -> None:
    begin = crontab_block(Entry(directory=tmp_path)).splitlines()[0]
    (tables / CRONTAB).write_text(f"{begin}\n1 1 * * * mine\n")
    with pytest.raises(UserError, match="by hand"):
        install(Entry(directory=tmp_path), CRONTAB)
    assert "mine" in (tables / CRONTAB).read_text()


def test_an_edit_in_between_is_noticed(tmp_path: Path, tables: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads, read = 0, cron._read

    def edited(table: str) -> str:
        nonlocal reads
        reads += 1
        text = read(table)
        if reads == 1:  # after the first look, before the write
            (tables / table).write_text("3 3 * * * theirs\n")
        return text

    monkeypatch.setattr(cron, "_read", edited)
    install(Entry(directory=tmp_path), CRONTAB)
    text = (tables / CRONTAB).read_text()
    assert "theirs" in text and "orchestrate begins" in text
    monkeypatch.setattr(cron, "_read", lambda table: os.urandom(4).hex())
    with pytest.raises(UserError, match="changed by somebody else"):
        install(Entry(directory=tmp_path), CRONTAB)


def test_slurms_own_cron_is_preferred_where_it_is_enabled(
    tables: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cron.choose_table(None) == SCRONTAB
    monkeypatch.setenv("DISABLED", SCRONTAB)
    assert cron.choose_table(None) == CRONTAB
    with pytest.raises(UserError, match="is disabled on this cluster"):
        cron.choose_table(SCRONTAB)


def test_what_slurms_cron_is_asked_for() -> None:
    resources = SlurmConfig(
        executor="slurm",
        partition="a100",
        timeout_min=600,
        gpus_per_task=1,
        driver={"partition": ["cpu", "dev"]},
    )
    block = scrontab_block(Entry(directory=Path("/a/50% ü"), resources=resources))
    assert "#SCRON --partition=cpu,dev\n" in block and "#SCRON --cpus-per-task=1\n" in block
    assert "#SCRON --time=30\n" in block and "gpu" not in block
    assert "#SCRON --output='/a/50%% ü/logs/cron.log'" in block
    assert "advance '/a/50% ü' --quiet" in block, "only cron reads % as a line break"


def test_no_table_holds_a_line_break(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="line break"):
        crontab_block(Entry(directory=tmp_path / "a\nb"))


def test_a_long_environment_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.environ["PATH"] + ":/x" * 1000)
    line = command_of(crontab_block(Entry(directory=Path("/a"))))
    assert len(line) < 1000
    if found := shutil.which("sbatch"):
        assert str(Path(found).parent) in line


def test_cron_takes_the_steps_of_a_sweep_in_an_odd_folder(tmp_path: Path) -> None:
    folder = tmp_path / 'it\'s 50% "ü" $HOME'
    write_user_sweep(folder)
    orchestrate("plan", "sweep.yaml", cwd=folder)
    sweep = folder / "sweeps" / "mine"
    printed = orchestrate("cron", sweep, "--with", "crontab", cwd=tmp_path).stdout
    line = command_of(printed)
    done = run_by_cron(line, tmp_path)
    assert done.returncode == 0 and (done.stdout, done.stderr) == ("", "")
    assert (
        "running: CheckJob, Freeze" in (sweep / "logs" / "cron.log").read_text()
        or "Submit" in (sweep / "logs" / "cron.log").read_text()
    )
    orchestrate("run", sweep, cwd=tmp_path)
    log = (sweep / "logs" / "cron.log").read_text()
    done = run_by_cron(line, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (sweep / "logs" / "cron.log").read_text() == log, "a finished sweep makes the line a no-op"


def test_the_command_installs_and_removes(tmp_path: Path, tables: Path) -> None:
    write_user_sweep(tmp_path)
    orchestrate("plan", "sweep.yaml", cwd=tmp_path)
    sweep = tmp_path / "sweeps" / "mine"
    shown = orchestrate("cron", sweep, "--install", "--every", 7, "--with", "crontab", cwd=tmp_path).stdout
    assert "installed in crontab: every 7 minutes" in shown
    assert str(sweep) in (tables / CRONTAB).read_text()
    content = json.loads(orchestrate("status", sweep, "--json", cwd=tmp_path).stdout)
    assert content["driven_by"] == "cron (crontab)"
    orchestrate("cron", "--all", tmp_path, "--install", cwd=tmp_path)
    assert f"advance --all {tmp_path}" in (tables / SCRONTAB).read_text()
    shutil.rmtree(sweep)
    assert "removed" in orchestrate("cron", sweep, "--remove", "--with", "crontab", cwd=tmp_path).stdout
    assert (tables / CRONTAB).read_text() == "", "also when the sweep is gone"
    assert "no line" in orchestrate("cron", sweep, "--remove", "--with", "crontab", cwd=tmp_path).stdout
    assert orchestrate("cron", sweep, cwd=tmp_path, status=2).stderr.startswith("error: ")


@pytest.mark.skipif(shutil.which("crontab") is None, reason="cron is not installed")
def test_the_real_crontab(tmp_path: Path) -> None:
    entry = Entry(directory=tmp_path / "50% of 'it'")
    before = cron._read(CRONTAB)
    install(entry, CRONTAB)
    try:
        assert crontab_block(entry) in cron._read(CRONTAB)
    finally:
        remove(entry, CRONTAB)
    assert cron._read(CRONTAB) == before
