"""Composing a sweep file: catalogues, overrides, freezing and reading back."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra._internal.hydra import Hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.version import VersionBase
from omegaconf import OmegaConf
from packaging.version import Version

from orchestrator.config import catalogues, freeze, has_path, job_config, leaf_paths, load_frozen, load_sweep
from orchestrator.errors import UserError
from orchestrator.schema import (
    SlurmConfig,
    StageConfig,
    SweepConfig,
    sweep_directory,
    task_cores,
    trials_at_once,
)

EXAMPLE = Path(__file__).parent.parent / "examples" / "digits.yaml"
INLINE = """\
name: tiny
metric: {name: acc}
jobs:
  _target_: my_train.train
  config: {lr: 0.1, epochs: 10, copy: "${epochs}", nested: {null_leaf: null}}
  scale: {epochs: epochs}
space: {lr: "tag(log, interval(1e-4, 1.0))"}
stages: {coarse: {trials: 8}}
"""


def load(folder: Path, text: str, *overrides: str, name: str = "sweep.yaml") -> SweepConfig:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return load_sweep(folder / name, overrides)


def test_the_example() -> None:
    config = load_sweep(EXAMPLE)
    assert config.name == "digits"
    assert list(config.stages) == ["coarse", "medium", "fine"]
    assert config.stages["coarse"] == StageConfig(trials=64, data=0.1, classes=2, epochs=3, sampler="sobol")
    assert config.stages["medium"].keep == 0.25
    assert config.slurm.executor == "local"
    assert config.jobs._target_ == "orchestrator.training.supervised.train"
    assert config.datasets["samples"] == 1797
    assert config.space["optimizer.lr"] == "tag(log, interval(1e-4, 1.0))"


def test_catalogues_are_where_the_package_says() -> None:
    for group, name in (("jobs", "classify"), ("datasets", "digits"), ("slurm", "local"), ("slurm", "gpu")):
        assert (catalogues() / group / f"{name}.yaml").is_file()


def test_no_defaults_list_at_all(tmp_path: Path) -> None:
    config = load(tmp_path, INLINE)
    assert config.jobs._target_ == "my_train.train"
    assert config.slurm.executor == "local"
    assert config.datasets == {}
    assert "dataset" not in job_config(config)


@pytest.mark.parametrize("name", ["sweep.yaml", "local.yaml", "jobs.yml"])
@pytest.mark.parametrize("defaults", ["defaults: [sweep, _self_]\n", "defaults: []\n"])
def test_any_name_and_any_way_to_begin(tmp_path: Path, name: str, defaults: str) -> None:
    assert load(tmp_path, defaults + INLINE, name=name) == load(tmp_path / "other", INLINE)


def test_the_users_own_catalogue_wins(tmp_path: Path) -> None:
    text = "defaults: [{jobs: classify}, {slurm: gpu}]\n" + INLINE.replace(
        INLINE[INLINE.index("jobs:") : INLINE.index("space:")], ""
    )
    (tmp_path / "jobs").mkdir()
    (tmp_path / "slurm").mkdir()
    (tmp_path / "jobs" / "classify.yaml").write_text("_target_: mine.train\nconfig: {lr: 3}\n")
    (tmp_path / "slurm" / "ours.yaml").write_text("executor: slurm\npartition: ours\n")
    config = load(tmp_path, text)
    assert (config.jobs._target_, config.jobs.config) == ("mine.train", {"lr": 3})
    assert (config.slurm.executor, config.slurm.gpus_per_task) == ("slurm", 1), "the built-in one beside it"
    assert load(tmp_path, text, "slurm=ours").slurm.partition == "ours"
    elsewhere = load(tmp_path / "elsewhere", text)
    assert elsewhere.jobs._target_ == "orchestrator.training.supervised.train"


def test_the_file_comes_over_the_catalogue(tmp_path: Path) -> None:
    config = load(tmp_path, "defaults: [{slurm: gpu}]\n" + INLINE + "slurm: {timeout_min: 7, qos: low}\n")
    assert (config.slurm.timeout_min, config.slurm.qos, config.slurm.gpus_per_task) == (7, "low", 1)


def test_overrides(tmp_path: Path) -> None:
    config = load_sweep(
        EXAMPLE,
        [
            "slurm=gpu",
            "slurm.partition=a100",
            "stages.coarse.trials=128",
            "+stages.more.trials=4",
            "+stages.more.data=0.5",
            "space.optimizer.lr=tag(log, interval(1e-3, 1))",
            "+space.model.depth=choice(1, 2)",
            "~space.model.dropout",
            "datasets=wine",
            "jobs.config.epochs=7",
            "+slurm.sbatch.reservation=night",
            "name=other",
        ],
    )
    assert (config.slurm.executor, config.slurm.gpus_per_task, config.slurm.partition) == ("slurm", 1, "a100")
    assert config.slurm.sbatch == {"reservation": "night"}
    assert config.stages["coarse"].trials == 128
    assert list(config.stages) == ["coarse", "medium", "fine", "more"]
    assert config.stages["more"] == StageConfig(trials=4, data=0.5)
    assert config.space["optimizer.lr"] == "tag(log, interval(1e-3, 1))"
    assert config.space["model.depth"] == "choice(1, 2)"
    assert "model.dropout" not in config.space
    assert config.datasets["samples"] == 178
    assert config.jobs.config["epochs"] == 7
    assert config.name == "other"


def test_a_stage_as_one_override_and_one_taken_away() -> None:
    config = load_sweep(EXAMPLE, ["+stages.more={trials: 4, epochs: 2}", "~stages.medium"])
    assert list(config.stages) == ["coarse", "fine", "more"]
    assert config.stages["more"] == StageConfig(trials=4, epochs=2)


def test_overrides_leave_no_trace_for_the_next_file(tmp_path: Path) -> None:
    load_sweep(EXAMPLE, ["stages.coarse.trials=5", "+stages.more.trials=4"])
    assert load_sweep(EXAMPLE).stages["coarse"].trials == 64
    assert list(load(tmp_path, INLINE).stages) == ["coarse"]


def test_interpolations_are_left_for_the_trial_in_the_jobs_config(tmp_path: Path) -> None:
    config = load(tmp_path, INLINE)
    assert config.jobs.config["copy"] == "${epochs}"
    node = job_config(config)
    node["epochs"] = 99
    assert node["copy"] == 99


def test_interpolations_elsewhere_are_resolved_when_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWEEP_PARTITION", "a100")
    text = (
        INLINE
        + "slurm: {partition: '${oc.env:SWEEP_PARTITION}', account: '${name}'}\n"
        + "seed: ${final.checkpoints}\n"
    )
    config = load(tmp_path, text)
    monkeypatch.delenv("SWEEP_PARTITION")
    assert (config.slurm.partition, config.slurm.account, config.seed) == ("a100", "tiny", 5)
    (tmp_path / "frozen.yaml").write_text(freeze(config))
    assert load_frozen(tmp_path / "frozen.yaml") == config


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["slurm=gpu", "slurm.setup=['module load x', 'conda activate \"y z\"']"],
        ["stages.coarse.classes=[1, 7]", "ensemble.members=[seeds]"],
        ["dir='/some where/größe'", "+slurm.sbatch={exclude: 'n[1-3]', nice: 5, requeue: true}"],
        ["space.model.width=64", "space.loss.label_smoothing=choice(0.0, 0.1)"],
    ],
)
def test_a_frozen_file_reads_back_as_it_was(tmp_path: Path, overrides: list[str]) -> None:
    config = load_sweep(EXAMPLE, overrides)
    frozen = tmp_path / "sweep.yaml"
    frozen.write_text(freeze(config))
    again = load_frozen(frozen)
    assert again == config
    assert freeze(again) == freeze(config)


def test_a_frozen_file_that_somebody_spoiled_is_named(tmp_path: Path) -> None:
    frozen = tmp_path / "sweep.yaml"
    for text, message in (
        (freeze(load_sweep(EXAMPLE)).replace("trials:", "trails:"), "unknown key 'trails'"),
        ("stages: [\n", "not readable as YAML"),
        ("- a\n", "mapping"),
    ):
        frozen.write_text(text)
        with pytest.raises(UserError, match=message) as caught:
            load_frozen(frozen)
        assert caught.value.file == frozen


@pytest.mark.parametrize(
    "folder",
    [
        "with space",
        "it's",
        'quo"ted',
        "größe-日本",
        "a,b=c",
        "[x]{y}",
        "100%",
        "a#b?c",
        "d:e",
        "$HOME",
        "${x}",
    ],
)
def test_folders_with_any_name(tmp_path: Path, folder: str) -> None:
    place = tmp_path / folder
    (place / "jobs").mkdir(parents=True)
    (place / "jobs" / "mine.yaml").write_text("_target_: mine.train\nconfig: {lr: 3}\n")
    text = "defaults: [{jobs: mine}]\n" + INLINE.replace(
        INLINE[INLINE.index("jobs:") : INLINE.index("space:")], ""
    )
    assert load(place, text, name="my sweep.yaml").jobs._target_ == "mine.train"


def test_relative_and_linked_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(tmp_path / "real", INLINE)
    (tmp_path / "link.yaml").symlink_to(tmp_path / "real" / "sweep.yaml")
    monkeypatch.chdir(tmp_path / "real")
    assert load_sweep(Path("sweep.yaml")) == load_sweep(Path("../link.yaml"))


def test_where_a_sweep_lives(tmp_path: Path) -> None:
    assert sweep_directory(load(tmp_path, INLINE)) == Path("sweeps/tiny")
    assert sweep_directory(load(tmp_path, INLINE, "dir=/data/x")) == Path("/data/x")
    assert sweep_directory(load(tmp_path, INLINE, "dir='~/x'")) == Path.home() / "x"


def test_paths_in_the_jobs_config(tmp_path: Path) -> None:
    config = load(tmp_path, INLINE)
    config.datasets = {"path": "x", "split": {"test": 0.2}}
    node = job_config(config)
    for path in ("lr", "nested", "nested.null_leaf", "copy", "dataset.split.test"):
        assert has_path(node, path), path
    for path in ("LR", "lr.deeper", "nested.null_leaf.deeper", "", "dataset.nope"):
        assert not has_path(node, path), path
    plain = OmegaConf.to_container(node, resolve=False)
    assert isinstance(plain, dict)
    assert leaf_paths({str(key): value for key, value in plain.items()}) == [
        "lr", "epochs", "copy", "nested.null_leaf", "dataset.path", "dataset.split.test",
    ]  # fmt: skip


def test_cores_and_trials_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 2})
    assert task_cores(SlurmConfig(cpus_per_task=0)) == 3
    assert trials_at_once(SlurmConfig(cpus_per_task=0, trials_at_once=0)) == 3
    assert trials_at_once(SlurmConfig(cpus_per_task=4, trials_at_once=0)) == 4
    assert trials_at_once(SlurmConfig(cpus_per_task=4, trials_at_once=2)) == 2


def test_composing_leaves_hydra_as_it_was(tmp_path: Path) -> None:
    # A notebook may have called `hydra.initialize`, and an application runs with its own version base.
    running, base, stored = GlobalHydra.instance(), VersionBase.instance().getbase(), ConfigStore.instance()
    before, names = running.hydra, set(stored.repo)
    own = Hydra(task_name="own", config_loader=None)  # type: ignore[arg-type]
    try:
        running.hydra, VersionBase.instance().version_base = own, Version("1.1")
        load(tmp_path, INLINE)
        with pytest.raises(UserError):
            load(tmp_path, INLINE, "slurm=nowhere")
        assert GlobalHydra.instance().hydra is own
        assert VersionBase.instance().getbase() == Version("1.1")
        assert set(stored.repo) == names
    finally:
        GlobalHydra.instance().hydra, VersionBase.instance().version_base = before, base
