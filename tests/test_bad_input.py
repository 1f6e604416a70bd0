"""Bad input about planning: one readable message, exit status 2, nothing written."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from orchestrator.cli import main
from orchestrator.control.create import work_out
from orchestrator.errors import UserError

OWN = """\
name: tiny
metric: {name: acc, mode: max}
jobs:
  _target_: my_train.train
  config: {lr: 0.1, width: 64, fraction: 1.0, epochs: 10, optimizer: {momentum: 0.5, nesterov: false}}
  scale: {data: fraction, epochs: epochs}
space:
  lr: tag(log, interval(1e-4, 1.0))
stages:
  coarse: {trials: 8, data: 0.5, epochs: 1}
final: {top: 2}
"""
DIGITS = """\
defaults:
  - jobs: classify
  - datasets: digits
name: tiny
metric: {name: val/accuracy}
space:
  optimizer.lr: tag(log, interval(1e-4, 1.0))
stages:
  coarse: {trials: 8, data: 0.5, epochs: 1}
final: {top: 2}
"""
TRAIN = "def train(config, trial):\n    return {'acc': 1.0}\n"
Refusal = Callable[..., str]


def files_here() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(Path().rglob("*")) if path.is_file()}


def _edited(base: str, old: str, new: str) -> str:
    assert base.count(old) == 1, f"{old!r} must stand exactly once in the file to be spoiled"
    return base.replace(old, new)


@pytest.fixture
def refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Refusal:
    """Plan a sweep that must be refused; returns the one message."""
    monkeypatch.chdir(tmp_path)

    def refuse(text: str | bytes | None, *overrides: str, code: str | None = TRAIN) -> str:
        if text is not None:
            Path("sweep.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        if code is not None:
            Path("my_train.py").write_text(code)
        before = files_here()
        result = CliRunner().invoke(main, ["plan", "sweep.yaml", *overrides])
        assert result.exit_code == 2, (result.output, result.exception)
        assert files_here() == before
        assert not Path("sweeps").exists()
        assert result.stdout == ""
        lines = result.stderr.splitlines()
        assert len(lines) == 1, "one message, in one line"
        assert lines[0].startswith("error: ")
        assert "Traceback" not in lines[0]
        # The words of the libraries below mean nothing to the user.
        assert not re.search(
            r"_orchestrator|Error raised|full_key|\bstruct\b|DictConfig|'NoneType'", lines[0]
        )
        return lines[0].removeprefix("error: ")

    return refuse


def test_the_good_files_are_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_train.py").write_text(TRAIN)
    for text in (OWN, DIGITS):
        Path("sweep.yaml").write_text(text)
        result = CliRunner().invoke(main, ["plan", "sweep.yaml", "--dry-run"])
        assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("final:", "finale:", "sweep.yaml: finale: unknown key 'finale'. Did you mean 'final'?"),
        (
            "trials:",
            "trails:",
            "sweep.yaml: stages.coarse.trails: unknown key 'trails'. Did you mean 'trials'?",
        ),
        ("mode:", "moed:", "sweep.yaml: metric.moed: unknown key 'moed'. Did you mean 'mode'?"),
        ("top:", "topp:", "sweep.yaml: final.topp: unknown key 'topp'. Did you mean 'top'?"),
        ("_target_:", "target:", "sweep.yaml: jobs.target: unknown key 'target'. Did you mean '_target_'?"),
        (
            "name: tiny",
            "name: tiny\nslurm: {partitoin: a100}",
            "sweep.yaml: slurm.partitoin: unknown key 'partitoin'. Did you mean 'partition'?",
        ),
        (
            "  scale:",
            "  cost: {start_seconds: 1}\n  scale:",
            "sweep.yaml: jobs.cost.start_seconds: unknown key 'start_seconds'. Did you mean 'startup",
        ),
        (
            "name: tiny",
            "name: tiny\nhydra: {}",
            "sweep.yaml: hydra: unknown key 'hydra'. Valid: budget, checks, datasets, dir,",
        ),
    ],
)
def test_unknown_key(refusal: Refusal, old: str, new: str, message: str) -> None:
    assert refusal(_edited(OWN, old, new)).startswith(message)


def test_space_key_that_is_not_in_the_jobs_config(refusal: Refusal) -> None:
    spoiled = _edited(DIGITS, "  optimizer.lr: tag", "  optimizer.lrr: tag")
    assert refusal(spoiled) == (
        "sweep.yaml: space.optimizer.lrr: is not in the job's config. Did you mean 'optimizer.lr'?"
    )


def test_space_key_that_is_a_group_of_the_jobs_config(refusal: Refusal) -> None:
    spoiled = _edited(OWN, "  lr: tag(log, interval(1e-4, 1.0))", "  optimizer: choice(1, 2)")
    message = refusal(spoiled)
    assert message.startswith("sweep.yaml: space.optimizer: is a group")
    assert "In it: optimizer.momentum, optimizer.nesterov. To choose between whole groups, give" in message


@pytest.mark.parametrize("declared", ["interval(1, 1)", "int(interval(1.2, 1.4))", "3"])
def test_space_in_which_nothing_varies(refusal: Refusal, declared: str) -> None:
    message = refusal(_edited(OWN, "tag(log, interval(1e-4, 1.0))", declared))
    assert message.startswith("sweep.yaml: space: nothing varies: every parameter has one value")


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ("interval(2, 0.5)", "interval(2, 0.5) is reversed. Write interval(0.5, 2)"),
        (
            "tag(log, interval(0, 1))",
            "a logarithm over 0. Begin a log range above zero, or leave out the log",
        ),
        ("tag(log, interval(-1, 1))", "a logarithm over -1."),
        ("interval(1, inf)", "interval(1.0, inf) is not finite"),
        ("range(3, 1)", "range(3, 1) is reversed. Write range(1, 3)"),
        ("choice()", "'choice()' is not in Hydra's sweep grammar"),
        ("interval(1)", "'interval(1)' is not in Hydra's sweep grammar"),
        ("interval(a, b)", "'interval(a, b)' is not in Hydra's sweep grammar"),
        ("nonsense(", "'nonsense(' is not in Hydra's sweep grammar"),
        ("glob(*)", "a pattern names no choices. Write them out: choice(a, b)"),
        ("[]", "an empty list of choices"),
        ("{low: 1, high: 2}", "is a mapping, not a range. Write interval(low, high), or"),
        ("null", "has no range"),
        ("", "has no range"),
    ],
)
def test_bad_range(refusal: Refusal, declared: str, message: str) -> None:
    quoted = declared if declared[:1] in ("[", "{") or declared in ("null", "") else f'"{declared}"'
    spoiled = _edited(OWN, "tag(log, interval(1e-4, 1.0))", quoted)
    assert refusal(spoiled).startswith(f"sweep.yaml: space.lr: {message}")


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        ("data: 1.5", "stages.coarse.data: 1.5 is more data than there is. The whole of it is 1.0"),
        (
            "data: 5000",
            "stages.coarse.data: 5000 samples are more data than there is: 1,079 of 1,797 are for",
        ),
        ("data: 0", "stages.coarse.data: 0 is no amount of data"),
        ("data: -0.5", "stages.coarse.data: -0.5 is no amount of data"),
        ("data: lots", "stages.coarse.data: 'lots' is no amount of data"),
        ("data: null", "stages.coarse.data: null is no amount of data"),
        ("data: true", "stages.coarse.data: True is no amount of data"),
        ("data: .nan", "stages.coarse.data: nan is no amount of data"),
        ("classes: 11", "stages.coarse.classes: 11 classes are more than there are. The dataset has 10"),
        ("classes: 1", "stages.coarse.classes: 1 is too few; the least is 2"),
        ("classes: few", "stages.coarse.classes: 'few' is neither a count nor a list of classes"),
        ("classes: [3, 99]", "stages.coarse.classes: there is no class '99'. Did you mean '9'?"),
        ("epochs: 0", "stages.coarse.epochs: 0 is too few; the least is 1"),
    ],
)
def test_more_data_or_classes_than_there_are(refusal: Refusal, scale: str, message: str) -> None:
    assert refusal(_edited(DIGITS, "data: 0.5, epochs: 1", scale)).startswith(f"sweep.yaml: {message}")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("jobs: classify", "jobs: clasify", "jobs: there is no 'clasify'. Did you mean 'classify'?"),
        ("datasets: digits", "datasets: digts", "datasets: there is no 'digts'. Did you mean 'digits'?"),
        ("defaults:", "defaults:\n  - slurm: gpus", "slurm: there is no 'gpus'. Did you mean 'gpu'?"),
        ("- datasets", "- dataset", "defaults: 'dataset' is no config group. Did you mean 'datasets'?"),
    ],
)
def test_missing_catalogue_entry(refusal: Refusal, old: str, new: str, message: str) -> None:
    assert refusal(_edited(DIGITS, old, new)) == f"sweep.yaml: {message}"


def test_missing_catalogue_entry_on_the_command_line(refusal: Refusal) -> None:
    message = refusal(DIGITS, "slurm=gpus")
    assert message == "command line: slurm: there is no 'gpus'. Did you mean 'gpu'?"


def test_an_entry_of_a_catalogue_named_outside_the_defaults_list(refusal: Refusal) -> None:
    assert refusal(OWN + "datasets: digits\n") == (
        "sweep.yaml: datasets: 'digits' is not a mapping. "
        "Choose a catalogue's entry in the defaults list: `- datasets: digits`"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "_target_: my_train.train\nconfig: {epochs: 3}\ncost: {startup_seconds: lots}\n",
            "'lots' is not a number",
        ),
        ("_target_: my_train.train\nconfg: {epochs: 3}\n", "unknown key 'confg'. Did you mean 'config'?"),
        ("_target_: [my_train\n", "not readable as YAML"),
    ],
)
def test_a_bad_file_in_the_users_own_catalogue_is_named(
    refusal: Refusal, tmp_path: Path, content: str, message: str
) -> None:
    own = tmp_path / "jobs" / "mine.yaml"
    own.parent.mkdir()
    own.write_text(content)
    spoiled = _edited(DIGITS, "jobs: classify", "jobs: mine")
    found = refusal(spoiled)
    assert str(own) in found
    assert message in found


@pytest.mark.parametrize(
    ("target", "code", "message"),
    [
        ("my_trian.train", TRAIN, "'my_trian.train' can't be imported: there is no module 'my_trian'"),
        ("my_train.trian", TRAIN, "'my_train.trian' can't be imported"),
        ("my_train.train", "import os\n\ndef train(:\n", "my_train.py line 3 is not Python"),
        ("train", TRAIN, "'train' is no dotted path of a function. Write module.function"),
        ("numpy.nowhere.train", TRAIN, "there is no module 'numpy.nowhere'"),
    ],
)
def test_job_that_cannot_be_imported(refusal: Refusal, target: str, code: str, message: str) -> None:
    found = refusal(_edited(OWN, "my_train.train", target), code=code)
    assert found.startswith("sweep.yaml: jobs._target_: ")
    assert message in found
    if "trian" in target:
        assert found.endswith("Did you mean 'my_train'?" if "my_trian" in target else "Did you mean 'train'?")


@pytest.mark.parametrize("place", ["/proc/nowhere", "my_train.py", "my_train.py/below"])
def test_directory_that_is_not_writable(refusal: Refusal, tmp_path: Path, place: str) -> None:
    message = refusal(OWN, f"dir={place}")
    assert message.startswith(f"{tmp_path / place}: can't be written to (")
    assert message.endswith("Choose another place: dir=/some/folder")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [\n", "sweep.yaml: not readable as YAML ("),
        ("name: tiny\n\tseed: 1\n", "sweep.yaml: not readable as YAML ("),
        (b"\x00\x01", "sweep.yaml: not readable as YAML ("),
        (b"name: \xff\xfe\n", "sweep.yaml: not readable as YAML ("),
        ("name: a\nname: b\n", "sweep.yaml: not readable as YAML (while constructing a mapping"),
        ("- a\n- b\n", "sweep.yaml: a sweep file is a mapping"),
        ("just text\n", "sweep.yaml: "),
        ("", "sweep.yaml: jobs._target_: needs a value. Choose a job"),
        ("defaults: jobs\n", "sweep.yaml: defaults: the defaults list is a list"),
    ],
)
def test_malformed_file(refusal: Refusal, text: str | bytes, message: str) -> None:
    assert refusal(text).startswith(message)


def test_missing_file(refusal: Refusal, tmp_path: Path) -> None:
    assert refusal(None) == "sweep.yaml: there is no such sweep file"
    (tmp_path / "sweeep.yaml").write_text(OWN)
    assert refusal(None) == "sweep.yaml: there is no such sweep file. Did you mean 'sweeep.yaml'?"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("trials: 8", "trials: many", "stages.coarse.trials: 'many' is not a whole number"),
        ("trials: 8", "trials: 8.5", "stages.coarse.trials: '8.5' is not a whole number"),
        ("trials: 8", "trials: null", "stages.coarse.trials: null where a whole number belongs"),
        ("trials: 8", "trials: 8, keep: null", "stages.coarse.keep: null where a number belongs"),
        ("trials: 8", "trials: 0", "stages.coarse.trials: 0 is too few; the least is 1"),
        ("trials: 8, ", "", "stages.coarse.trials: needs a value"),
        ("trials: 8", "trials: 8, sampler: sobl", "stages.coarse.sampler: 'sobl' is not known. Did you mean"),
        ("trials: 8", "trials: 8, keep: 2", "stages.coarse.keep: 2 is not a share of the trials"),
        (
            "trials: 8",
            "trials: 8, survivors: 9",
            "stages.coarse.survivors: 9 survivors and controls don't fit",
        ),
        ("name: tiny", "name: tiny\nseed: null", "seed: null where a whole number belongs"),
        ("name: tiny\n", "", "name: needs a value"),
        ("name: acc, ", "", "metric.name: needs a value. Name a key of what the training function returns"),
        ("{name: acc, mode: max}", "acc", "metric: 'acc' is not a mapping"),
        ("mode: max", "mode: maxx", "metric.mode: 'maxx' is not known. Did you mean 'max'?"),
        ("{trials: 8, data: 0.5, epochs: 1}", "8", "stages.coarse: 8 is not a mapping"),
        ("  coarse:", "  -", "stages: ["),
        ("  coarse: {trials: 8, data: 0.5, epochs: 1}\n", "", "stages: null where a mapping belongs"),
        ("  lr: tag(log, interval(1e-4, 1.0))\n", "", "space: null where a mapping belongs"),
        ("  lr: tag(log, interval(1e-4, 1.0))\n", "  - lr\n", "space: ['lr'] is not a mapping"),
        ("{top: 2}", "null", "final: null where a mapping belongs"),
        ("top: 2", "top: -1", "final.top: -1 is too few"),
        ("top: 2", "top: 20", "final.top: 20 settings can't come from the 8 trials of 'coarse'"),
        ("final:", "ensemble: {members: seeds}\nfinal:", "ensemble.members: expected a list"),
        (
            "final:",
            "ensemble: {members: [seed]}\nfinal:",
            "ensemble.members: 'seed' is not known. Did you mean",
        ),
        ("final:", "slurm: {executor: pbs}\nfinal:", "slurm.executor: 'pbs' is not known"),
        ("final:", "slurm: {mem_gb: lots}\nfinal:", "slurm.mem_gb: 'lots' is not a number or null"),
        ("name: tiny", "name: a/b", "name: 'a/b' can't be a directory's name"),
        ("name: tiny", "name: tiny\nseed: ${nowhere}", "seed: Interpolation key 'nowhere' not found"),
        (
            "data: fraction",
            "data: fractoin",
            "jobs.scale.data: 'fractoin' is not in the job's config. Did you",
        ),
        ("data: fraction", "date: fraction", "jobs.scale.date: 'date' is not known. Did you mean 'data'?"),
        ("data: fraction, ", "", "stages.coarse.data: the job has no place for it"),
        ("  scale:", "  limits: {lr: 3}\n  scale:", "jobs.limits.lr: limits are two numbers [low, high]"),
        (
            "  scale:",
            "  limits: {lr: [0.1, 1]}\n  scale:",
            "space.lr: 0.0001 … 1 reaches past its hard limits",
        ),
        (
            "  scale:",
            "  limits: {lrr: [0, 1]}\n  scale:",
            "jobs.limits.lrr: is not in the job's config. Did you",
        ),
    ],
)
def test_wrong_value(refusal: Refusal, old: str, new: str, message: str) -> None:
    assert refusal(_edited(OWN, old, new)).startswith(f"sweep.yaml: {message}")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["stages.coarse.trails=3"], "stages.coarse.trails: unknown key 'trails'. Did you mean 'trials'?"),
        (["stages.corse.trials=3"], "stages.corse.trials: there is no stage 'corse'. Did you mean 'coarse'?"),
        (["stages.zzz.trials=3"], "stages.zzz.trials: there is no stage 'zzz'. Valid: coarse"),
        (["+stages.more.trails=3"], "stages.more.trails: unknown key 'trails'. Did you mean 'trials'?"),
        (["stages.coarse.trials=many"], "stages.coarse.trials: 'many' is not a whole number"),
        (["stages.coarse.trials=null"], "stages.coarse.trials: null where a whole number belongs"),
        (["stages.coarse.trials="], "stages.coarse.trials: '' is not a whole number"),
        (["stages.coarse.trials=0"], "stages.coarse.trials: 0 is too few; the least is 1"),
        (["stages.coarse={trials: many}"], "stages.coarse"),
        (["stages.coarse=3"], "stages.coarse: '3' is not a mapping"),
        (["metric=acc"], "metric: 'acc' is not a mapping"),
        (["nmae=x"], "nmae: unknown key 'nmae'. Did you mean 'name'?"),
        (["dataset=digits"], "dataset: unknown key 'dataset'. Did you mean 'datasets'?"),
        (["hydra.run.dir=x"], "hydra.run.dir: unknown key 'hydra'"),
        (["jobs.config.widht=3"], "jobs.config.widht: unknown key 'widht'. Did you mean 'width'?"),
        (["slurm.partitoin=x"], "slurm.partitoin: unknown key 'partitoin'. Did you mean 'partition'?"),
        (["space.lrr=interval(0, 1)"], "space.lrr: is not in the job's config. Did you mean 'lr'?"),
        (["space.lr=interval(1, 0)"], "space.lr: interval(1, 0) is reversed"),
        (["~space.lrr"], "space.lrr: there is no such range to leave out. Did you mean 'lr'?"),
        (["~nothing"], "nothing: unknown key 'nothing'"),
        (["~slurm.nothing"], "slurm.nothing: there is no such key to leave out"),
        (["+seed=3"], "seed: is there already. Leave out the +"),
        (["seed=1,2"], "seed: several values where one belongs"),
        (["seed=1", "seed=2"], "seed: given twice: seed=1 and seed=2"),
        (["nonsense"], "'nonsense' is no override. Write key=value"),
        (["=3"], "'=3' is no override"),
        (["a=b=c"], "'a=b=c' is no override ("),
        (["stages.coarse.trials=[1"], "'stages.coarse.trials=[1' is no override ("),
        (["name=a/b"], "name: 'a/b' can't be a directory's name"),
    ],
)
def test_bad_override(refusal: Refusal, overrides: list[str], message: str) -> None:
    assert refusal(OWN, *overrides).startswith(f"command line: {message}")


def test_what_an_override_takes_away_is_missed_in_the_file(refusal: Refusal) -> None:
    assert refusal(OWN, "~space.lr").startswith("sweep.yaml: space: nothing varies")
    assert refusal(OWN, "~metric").startswith("sweep.yaml: metric.name: needs a value")


def test_unknown_key_of_a_dataset(refusal: Refusal) -> None:
    wanted = "command line: datasets.fractoin: unknown key 'fractoin'. Did you mean 'fraction'?"
    assert refusal(DIGITS, "datasets.fractoin=0.5") == wanted
    assert refusal(DIGITS, "+datasets.fractoin=0.5").endswith("Did you mean 'fraction'?")
    assert "datasets.label: needs a value" in refusal(_edited(DIGITS, "digits", "parquet"))


@pytest.mark.parametrize(
    ("added", "message"),
    [
        ("close: 0", "stages.coarse.close: 0 is not a share of the trials. 1.0 waits for all"),
        ("close: 1.5", "stages.coarse.close: 1.5 is not a share of the trials. 1.0 waits for all"),
        ("close: .nan", "stages.coarse.close: nan is not a share of the trials. 1.0 waits for all"),
        (
            "prune: 1",
            "stages.coarse.prune: 1 can't be: the best 1/prune go on at each rung. "
            "Write 3 to keep a third, or 0 to stop none",
        ),
        ("prune: -3", "stages.coarse.prune: -3 can't be: "),
        ("prune: .inf", "stages.coarse.prune: inf can't be: "),
        ("prune: .nan", "stages.coarse.prune: nan can't be: "),
        ("waves: 0", "stages.coarse.waves: 0 is too few; the least is 1"),
        (
            "waves: 9",
            "stages.coarse.waves: 8 trials can't be drawn in 9 waves. A wave has at least one trial",
        ),
        (
            "waves: 2, sampler: grid",
            "stages.coarse.waves: a grid is drawn at once. Leave waves out, or take sampler: sobol",
        ),
        ("repeats: -1", "stages.coarse.repeats: -1 runs can't be. 0 repeats none"),
        ("tune: [lrr]", "stages.coarse.tune: 'lrr' is not known. Did you mean 'lr'?"),
    ],
)
def test_how_a_stage_goes(refusal: Refusal, added: str, message: str) -> None:
    spoiled = _edited(OWN, "coarse: {trials: 8, data: 0.5, epochs: 1}", f"coarse: {{trials: 8, {added}}}")
    assert refusal(spoiled).startswith(f"sweep.yaml: {message}")


def test_a_column_of_text_is_refused_before_anything_is_planned(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = {"size": [1.0, 2.0] * 20, "note": ["x"] * 40, "kind": ["a", "b"] * 20}
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    file = tmp_path / "sweep.yaml"
    file.write_text(
        "defaults: [sweep, {jobs: classify}, {datasets: parquet}, _self_]\n"
        "name: tiny\nmetric: {name: val/accuracy}\nspace: {optimizer.lr: 'interval(0.1, 1)'}\n"
        "stages: {first: {trials: 4}}\ndatasets: {path: t.parquet, label: kind}\n"
    )
    with pytest.raises(UserError, match="column 'note' holds string, not numbers"):
        work_out(file, [])
    assert work_out(file, ["datasets.features=[size]"]).plan.stages
