"""The Hydra sweeper plugin: Hydra's own suites, whole sweeps, what goes wrong, and going on after it."""

from __future__ import annotations

import math
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import CompactHydraException, ConfigCompositionException, HydraException
from hydra.plugins.sweeper import Sweeper
from hydra.test_utils.launcher_common_tests import (
    BatchedSweeperTestSuite,
    IntegrationTestSuite,
    LauncherTestSuite,
)
from hydra.test_utils.test_utils import SweepTaskFunction
from hydra.version import VersionBase
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from packaging.version import Version

from hydra_plugins.coarse_to_fine_sweeper import CoarseToFineConf, CoarseToFineSweeper
from orchestrator import load_results
from orchestrator.cli import main
from orchestrator.control.draw import freeze as draw
from orchestrator.errors import UserError
from orchestrator.multirun.declare import Settings, declare
from orchestrator.multirun.job import Assignment, Recorded, judged, record_return
from orchestrator.multirun.words import Word, as_text, job_overrides, read_words
from orchestrator.space import parse_parameter
from orchestrator.sweep.directory import SweepDirectory, read_trials
from orchestrator.sweep.records import COMPLETED, DIVERGED, FAILED, read_directory
from orchestrator.worker.job import check as check_job

OURS = "hydra/sweeper=coarse_to_fine"
LR = "+lr=tag(log, interval(1e-4, 1))"
SMALL = "hydra.sweeper.stages={coarse: {trials: 3}, fine: {trials: 2}}"
ONE = "hydra.sweeper.stages={one: {trials: 1}}"

# Hydra's suites run without a version_base, as applications did before 1.2.
pytestmark = pytest.mark.filterwarnings("ignore:Future Hydra versions will no longer change:UserWarning")


@pytest.fixture(autouse=True)
def compatible() -> Iterator[None]:
    """Give each test the base that Hydra has in a fresh process; composing a sweep file sets another one."""
    base = VersionBase.instance()
    before = base.getbase()
    base.version_base = Version("1.1")
    yield
    base.version_base = before


# Hydra's own suites.


@pytest.mark.parametrize("launcher_name, overrides", [("basic", [OURS])])
class TestAsBasicSweeper(LauncherTestSuite):
    """With plain choices and nothing declared it does what Hydra's own sweeper does."""


@pytest.mark.parametrize("launcher_name, overrides", [("basic", [OURS, "hydra.sweeper.max_batch_size=2"])])
class TestBatches(BatchedSweeperTestSuite):
    pass


@pytest.mark.parametrize(
    "task_launcher_cfg, extra_flags", [({}, ["-m", OURS, "hydra/launcher=basic"])], ids=["basic"]
)
class TestIntegration(IntegrationTestSuite):
    pass


def test_hydra_finds_it() -> None:
    assert CoarseToFineSweeper.__name__ in [found.__name__ for found in Plugins.instance().discover(Sweeper)]


def test_finding_it_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom hydra.core.plugins import Plugins\nPlugins.instance()\n"
        "assert 'hydra_plugins.coarse_to_fine_sweeper' in sys.modules\n"
        "print(sorted({'torch', 'pandas', 'optuna', 'dask', 'orchestrator'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Whole sweeps.


class Multirun:
    """An application whose jobs are counted, run with the plugin in this process."""

    def __init__(self, run: Callable[..., SweepTaskFunction], folder: Path) -> None:
        self._run, self.folder = run, folder
        self.configs: list[DictConfig] = []

    def __call__(self, *overrides: str, job: Callable[[DictConfig], Any]) -> list[Sequence[JobReturn]]:
        self.configs = []

        def counted(config: DictConfig) -> Any:
            self.configs.append(config)
            return job(config)

        sweep = self._run(
            calling_file=None,
            calling_module="hydra.test_utils.a_module",
            task_function=counted,
            config_path="configs",
            config_name="compose.yaml",
            overrides=[OURS, "hydra/launcher=basic", "hydra.job.chdir=false", *overrides],
            temp_dir=self.folder,
        )
        sweep.__enter__()
        # Its __exit__ would delete the folder.
        returns: list[Sequence[JobReturn]] = sweep.returns or []
        return returns

    @property
    def best(self) -> dict[str, Any]:
        found = OmegaConf.load(self.folder / "optimization_results.yaml")
        return dict(OmegaConf.to_container(found))  # type: ignore[arg-type]


@pytest.fixture
def multirun(
    hydra_sweep_runner: Callable[..., SweepTaskFunction], hydra_restore_singletons: None, tmp_path: Path
) -> Multirun:
    return Multirun(hydra_sweep_runner, tmp_path / "multirun")


def peak(config: DictConfig) -> float:
    """A job whose best rate is 0.01."""
    return -((math.log10(config.lr) + 2) ** 2)


def test_a_sweep_narrows_promotes_and_is_read_like_any_other(multirun: Multirun) -> None:
    stages = "{coarse: {trials: 16, epochs: 2}, fine: {trials: 4, survivors: 2, controls: 1}}"
    multirun(
        LR, "foo=choice(10, 20)", f"hydra.sweeper.stages={stages}", "hydra.sweeper.sampler=random",
        "hydra.sweeper.scale={epochs: +epochs}", job=peak,
    )  # fmt: skip
    results = load_results(multirun.folder)
    assert results.stages == ["coarse", "fine"] and len(results.trials) == 20
    assert set(results.trials["state"]) == {"completed"}
    assert list(results.at("fine")["origin"])[:3] == ["survivor", "survivor", "control"]
    coarse, fine = (results.spaces[stage]["lr"] for stage in ("coarse", "fine"))
    assert fine["high"] / fine["low"] < coarse["high"] / coarse["low"] and fine["low"] < 0.01 < fine["high"]
    assert [config.get("epochs") for config in multirun.configs] == [2] * 16 + [None] * 4
    best = results.best(1).iloc[0]
    assert multirun.best["best_value"] == best["objective"] and multirun.best["name"] == "coarse_to_fine"
    assert multirun.best["best_params"] == {"+lr": best["param.lr"], "foo": best["param.foo"]}
    assert (multirun.folder / "multirun.yaml").exists() and (multirun.folder / "19").is_dir()


def test_its_folder_is_a_sweeps_directory_to_the_commands(
    multirun: Multirun, capsys: pytest.CaptureFixture[str]
) -> None:
    multirun(LR, ONE, job=peak)
    with pytest.raises(SystemExit) as ended:
        main(["status", str(multirun.folder)])
    said = capsys.readouterr().out
    assert ended.value.code == 0 and "one" in said
    with pytest.raises(SystemExit):
        main(["report", str(multirun.folder)])
    assert "<html" in (multirun.folder / "report.html").read_text()


def test_a_config_group_is_searched_and_a_condition_keeps_keys_away_from_others(multirun: Multirun) -> None:
    def job(config: DictConfig) -> float:
        assert ("momentum" in config) == (config.foo == 10)
        return float(config.get("momentum", 0.5))

    multirun(
        "group1=file1,file2", "+momentum=interval(0, 1)", "hydra.sweeper.stages={one: {trials: 4}}",
        'hydra.sweeper.when={momentum: "group1 == \'file1\'"}', job=job,
    )  # fmt: skip
    assert {config.foo for config in multirun.configs} == {10, 20}
    assert set(load_results(multirun.folder).trials["state"]) == {"completed"}


def test_lists_mappings_and_odd_strings_reach_the_job_as_they_were_written(multirun: Multirun) -> None:
    multirun("+a=choice([1, 2], {x: 1}, 'q=1, \"b\"', 'été')", job=lambda config: 1.0)
    seen = [OmegaConf.to_container(config)["a"] for config in multirun.configs]  # type: ignore[index, call-overload]
    assert seen == [[1, 2], {"x": 1}, 'q=1, "b"', "été"]
    assert multirun.best["best_params"]["+a"] in seen


# What goes wrong in a job.


def test_nan_is_a_result_and_failures_and_words_are_failures(multirun: Multirun) -> None:
    def job(config: DictConfig) -> Any:
        if config.foo == 1:
            return math.nan
        if config.foo == 2:
            raise ValueError("two is bad")
        if config.foo == 3:
            sys.exit(3)
        return {"objective": config.foo, "size": 7} if config.foo < 8 else "eight"

    multirun("foo=1,2,3,6,7,8", job=job)
    trials = load_results(multirun.folder).trials.set_index("param.foo")
    assert dict(trials["state"]) == {
        1: "diverged", 2: "failed", 3: "failed", 6: "completed", 7: "completed", 8: "failed",
    }  # fmt: skip
    assert "two is bad" in trials["error"][2] and "sys.exit(3)" in trials["error"][3]
    assert "returned str 'eight'" in trials["error"][8]
    assert trials["metric.size"][6] == 7 and multirun.best["best_params"] == {"foo": 7}


def test_a_smaller_objective_is_better_where_that_is_said(multirun: Multirun) -> None:
    multirun("foo=1,2,3", "hydra.sweeper.mode=minimize", job=lambda config: [math.nan, 5, 6][config.foo - 1])
    assert multirun.best["best_value"] == 5 and multirun.best["job"] == 1


def test_no_finite_result_is_written_as_none(multirun: Multirun) -> None:
    multirun("foo=1,2", job=lambda config: math.inf)
    assert multirun.best["best_value"] is None and multirun.best["best_params"] == {}


def test_too_many_failures_stop_it_and_a_retry_goes_on(multirun: Multirun) -> None:
    def broken(config: DictConfig) -> float:
        raise ValueError(f"no such file for {config.lr}")

    with pytest.raises(HydraException, match=r"3 of 3 jobs of 'coarse' failed(.|\n)*no such file"):
        multirun(LR, SMALL, job=broken)
    with pytest.raises(HydraException, match="retry_failed=true"):
        multirun(LR, SMALL, job=peak)
    assert not multirun.configs
    multirun(LR, SMALL, "hydra.sweeper.retry_failed=true", job=peak)
    assert len(multirun.configs) == 5
    assert set(load_results(multirun.folder).trials["state"]) == {"completed"}


def test_what_is_done_is_not_run_again_nor_by_others(
    multirun: Multirun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("PYTHONPATH", "")

    def dies(config: DictConfig) -> float:
        if len(multirun.configs) == 3:
            raise KeyboardInterrupt
        return peak(config)

    with pytest.raises(KeyboardInterrupt):
        multirun(LR, SMALL, job=dies)
    with pytest.raises(UserError, match="no function 'only_the_hydra_application"):
        # What `orchestrate run` does before it submits anything.
        check_job(multirun.folder)
    multirun(LR, SMALL, job=peak)
    assert len(multirun.configs) == 1 + 2
    # The jobs that began keep their folders.
    assert sorted(int(path.name) for path in multirun.folder.glob("[0-9]*")) == list(range(6))
    multirun(LR, SMALL, job=peak)
    assert not multirun.configs and multirun.best["best_value"] is not None


def test_a_job_whose_process_dies_each_time_is_given_up(multirun: Multirun) -> None:
    class Killed(BaseException):
        pass

    def dies(config: DictConfig) -> float:
        if config.foo == 2:
            for record in (multirun.folder / "stages" / "all" / "records").glob("*.jsonl"):
                assert record.read_text()
            raise Killed
        return float(config.foo)

    def without_the_interruption() -> None:
        # As SIGKILL would have left it.
        for path in (multirun.folder / "stages" / "all" / "records").glob("*.jsonl"):
            lines = path.read_text().splitlines(keepends=True)
            path.write_text("".join(line for line in lines if '"interrupted"' not in line))

    for _ in range(2):
        with pytest.raises(Killed):
            multirun("foo=2,3", "hydra.sweeper.attempts=2", job=dies)
        without_the_interruption()
    multirun("foo=2,3", "hydra.sweeper.attempts=2", job=dies)
    trials = load_results(multirun.folder).trials.set_index("param.foo")
    assert dict(trials["state"]) == {2: "failed", 3: "completed"}
    assert "began 2 times and never ended" in trials["error"][2]


# What goes wrong before any job.


@pytest.mark.parametrize(
    "text, settings, said",
    [
        (LR, {"mode": "maxx"}, "mode: 'maxx' is not known. Did you mean 'max'?"),
        (LR, {"stages": {"coarse": {"trails": 3}}}, "Did you mean 'trials'"),
        (LR, {"stages": {"coarse": {"trials": 0}}}, "stages.coarse.trials: 0 is too few"),
        (LR, {"stages": {"coarse": {"trials": "many"}}}, "stages.coarse"),
        (LR, {"stages": {"coarse": {}}}, "stages.coarse.trials: needs a value"),
        (LR, {"stages": [3]}, "stages"),
        (LR, {"stages": {}}, "there are no stages"),
        (LR, {"stages": {"a": {"trials": 3, "prune": 3}}}, "reports nothing on its way"),
        (LR, {"stages": {"a": {"trials": 3, "epochs": 3}}}, "no place for it"),
        (LR, {"sampler": "sobl"}, "Did you mean 'sobol'"),
        (LR, {"keep": math.nan}, "nan is not a share"),
        (LR, {"scale": {"epoch": "foo"}}, "scale.epoch: is no scale. Did you mean 'epochs'"),
        (LR, {"scale": {"epochs": "fooo"}}, "'fooo' is not in the application's config. Did you mean 'foo'"),
        (LR, {"scale": {"epochs": "act"}}, "'act' has no whole number"),
        ("foo=1,2", {"scale": {"epochs": "foo"}}, "'foo' is searched"),
        ("+lr=interval(1, 0)", {}, "is reversed"),
        ("+lr=interval(1, 1)", {"stages": {"a": {"trials": 1}, "b": {"trials": 1}}}, "nothing varies"),
        ("+lr=tag(log, interval(0, 1))", {}, "a logarithm over 0"),
        ("+lr=tag(ordered, interval(0, 1))", {}, "means nothing for an interval"),
        (LR, {"start_from": [{"lr": "fast"}]}, "start_from.0.lr: 'fast' is not a number"),
        (LR, {"start_from": 3}, "start_from: is no list"),
        (LR, {"limits": {"lr": [2, 1]}}, "limits"),
        (LR, {"limits": 3}, "limits: is no mapping"),
        (LR, {"when": {"lr": "foo =="}}, "when.lr"),
    ],
)
def test_bad_input_is_said_in_one_line(text: str, settings: dict[str, Any], said: str) -> None:
    application = OmegaConf.create({"foo": 3, "act": "relu"})
    with pytest.raises(UserError) as raised:
        declare(Settings(**settings), words(text), application, "app")
    assert said in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "overrides, said",
    [
        ([LR, "hydra.sweeper.mode=m"], "mode: 'm'"),
        ([LR, "hydra.sweeper.max_batch_size=-2"], "max_batch_size: -2 is too few"),
        ([LR, "hydra.sweeper.max_failure_rate=nan"], "nan is not a share"),
        (["lr=interval(0, 1)"], "Could not override 'lr'"),
    ],
)
def test_nothing_runs_of_what_is_wrong(multirun: Multirun, overrides: list[str], said: str) -> None:
    with pytest.raises(HydraException, match=said) as raised:
        multirun(*overrides, job=peak)
    # Hydra prints these alone.
    assert isinstance(raised.value, CompactHydraException | ConfigCompositionException)
    assert not multirun.configs


def test_a_folder_of_another_sweep_is_refused(multirun: Multirun) -> None:
    multirun(LR, ONE, "foo=1", job=peak)
    with pytest.raises(HydraException, match=r"holds another sweep: .*overrides.* differ"):
        multirun(LR, ONE, "foo=2", job=peak)
    with pytest.raises(HydraException, match=r"holds another sweep: metric.mode differ"):
        multirun(LR, ONE, "foo=1", "hydra.sweeper.mode=min", job=peak)


def test_two_at_once_in_one_folder_are_told_apart(multirun: Multirun) -> None:
    seen: list[str] = []

    def job(config: DictConfig) -> float:
        if not seen:
            code = "from pathlib import Path\nfrom orchestrator.sweep import lease\nimport sys\n" \
                "with lease.hold(Path(sys.argv[1]), 'a second one'): pass"  # fmt: skip
            lock = str(multirun.folder / "lease")
            done = subprocess.run([sys.executable, "-c", code, lock], capture_output=True, text=True)
            seen.append(done.stderr)
        return peak(config)

    multirun(LR, ONE, job=job)
    assert "Busy: a Hydra application" in seen[0]


# The parts.


def words(*texts: str) -> tuple[Word, ...]:
    return read_words(OverridesParser.create().parse_overrides(list(texts)))


def test_the_last_word_for_a_key_counts_and_a_stages_scale_comes_after_all() -> None:
    read = words("a=1", "+b=1,2", "~c", "epochs=5", "a=choice(3,4)", "d@e.f=2")
    texts = job_overrides(read, {"a": 3, "b": 2}, {"epochs": 1, "+classes": [0, 1]})
    assert texts == ["a=3", "+b=2", "~c", "d@e.f=2", "epochs=1", "+classes=[0,1]"]
    with pytest.raises(UserError, match="can't be searched"):
        words("~a=1,2")


PLAIN = st.one_of(
    st.integers(), st.floats(allow_nan=False), st.booleans(), st.none(),
    st.text(st.characters(exclude_categories=["Cs", "Cc"])),
)  # fmt: skip


@given(st.one_of(PLAIN, st.lists(PLAIN, max_size=3)))
def test_every_value_comes_back_as_it_was(value: Any) -> None:
    (parsed,) = OverridesParser.create().parse_overrides([f"a={as_text(value)}"])
    assert repr(parsed.value()) == repr(value)


def test_choices_are_held_and_written_by_type() -> None:
    (word,) = words("a=choice('1', 1, 1.0, true, 'true', [1, '2'], {a: '3'})")
    values = parse_parameter("a", word.declared, None, "").values
    assert [word.override(value) for value in values] == [
        "a='1'", "a=1", "a=1.0", "a=True", "a='true'", "a=[1,'2']", "a={a:'3'}",
    ]  # fmt: skip
    assert [word.value(value) for value in values][-2:] == [[1, "2"], {"a": "3"}]


@pytest.mark.parametrize(
    "returned, state, metrics",
    [
        (np.float32(0.5), COMPLETED, {"m": 0.5}),
        (np.array([3]), COMPLETED, {"m": 3.0}),
        ({"m": -math.inf, "n": 1, "note": "x"}, DIVERGED, {"m": -math.inf, "n": 1.0}),
        ({"n": 1}, FAILED, {"n": 1.0}),
        (None, FAILED, {}),
        (True, FAILED, {}),
        ("1.0", FAILED, {}),
        (np.zeros(3), FAILED, {}),
        (10**400, FAILED, {}),
        (1j, FAILED, {}),
    ],
)
def test_what_a_job_returns_is_judged(returned: Any, state: str, metrics: dict[str, float]) -> None:
    found = judged(returned, "m", 1.0)
    assert found[:2] == (state, metrics) and bool(found[3]) == (state == FAILED)


def test_what_a_job_could_not_write_is_written_for_it(tmp_path: Path) -> None:
    def returned(status: JobStatus, value: Any) -> JobReturn:
        job = JobReturn(status=status)
        job.return_value = value
        return job

    def assignment(number: int) -> Assignment:
        return Assignment(trial=f"t{number}", number=number, records=str(tmp_path), metric="m")

    record_return(assignment(0), returned(JobStatus.COMPLETED, 1.5))
    record_return(assignment(1), returned(JobStatus.FAILED, KeyError("gone")))
    record_return(assignment(2), returned(JobStatus.UNKNOWN, None))
    lines = [line for record in read_directory(tmp_path) for line in record.lines]
    assert [line["state"] for line in lines] == [COMPLETED, FAILED, FAILED]
    assert lines[0]["metrics"] == {"m": 1.5} and "KeyError: 'gone'" in lines[1]["error"]
    with pytest.raises(OSError, match="can't be written to"):
        record_return(
            Assignment(trial="t", number=0, records=str(tmp_path / "gone"), metric="m"),
            returned(JobStatus.COMPLETED, 1.0),
        )


def test_the_recorded_function_travels_to_another_process() -> None:
    recorded = Recorded(peak)
    recorded.assignments = {3: Assignment(trial="t", number=3, records="r", metric="m")}
    again = pickle.loads(pickle.dumps(recorded))
    assert again.assignments == recorded.assignments and again.__name__ == "peak"


@pytest.mark.parametrize(
    "scale, expected", [({"data": "+fraction"}, "data"), ({"epochs": "epochs"}, "epochs")]
)
def test_without_stages_there_is_a_ladder_over_the_scale(scale: dict[str, str], expected: str) -> None:
    application = OmegaConf.create({"epochs": 27, "lr": 0.1})
    stages = declare(
        Settings(scale=scale), words("lr=interval(0, 1)"), application, "app"
    ).config.stages.values()
    assert [stage.trials for stage in stages] == [32, 16, 8]
    scales = [getattr(stage, expected) for stage in stages]
    assert scales == ([0.111, 0.333, 1.0] if expected == "data" else [3, 9, None])


def test_the_same_seed_draws_the_same_settings(tmp_path: Path) -> None:
    def drawn(seed: int, place: str) -> list[dict[str, Any]]:
        declared = declare(Settings(seed=seed), words(LR), OmegaConf.create({}), "app")
        directory = SweepDirectory(tmp_path / place)
        draw(directory, declared.plan, declared.config, declared.plan.stages[0], 0)
        return [dict(spec.params) for spec in read_trials(directory.phase("stage", "coarse").trials)]

    assert drawn(1, "a") == drawn(1, "b") != drawn(2, "c")


def test_the_page_names_every_key_and_its_example_is_planned() -> None:
    page = (Path(__file__).parent.parent / "docs" / "hydra.md").read_text()
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", page, re.MULTILINE)
    keys = {field.name for field in fields(CoarseToFineConf)} - {"_target_"}
    assert {key for row in rows for key in re.findall(r"\w+", row)} == keys
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    hydra: Any = OmegaConf.to_container(OmegaConf.select(OmegaConf.create(example), "hydra.sweeper"))
    params = [f"{key}={value}" for key, value in hydra.pop("params").items()]
    application = OmegaConf.create(
        {"trainer": {"max_epochs": 30}, "data": {"fraction": 1.0}, "seed": 0, "optimizer": {"lr": 0.1}}
    )
    read = words("optimizer=sgd,adam", *params)
    declared = declare(Settings(**hydra), read, application, "app")
    assert [phase.share for phase in declared.plan.stages] == pytest.approx([0.01, 0.1, 1.0])
    assert set(hydra) <= keys


# Submitit's launcher, on this machine.

APP = """
import hydra


@hydra.main(version_base="1.3", config_name="app", config_path=".")
def main(cfg) -> float:
    if cfg.lr > 0.5:
        raise ValueError("too fast")
    return -abs(cfg.lr - 0.3)


if __name__ == "__main__":
    main()
"""


def test_submitits_launcher_runs_it(tmp_path: Path) -> None:
    pytest.importorskip(
        "hydra_plugins.hydra_submitit_launcher", reason="hydra-submitit-launcher is not there"
    )
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "app.yaml").write_text("lr: 0.1")
    command = [
        sys.executable, "app.py", "-m", OURS, "hydra/launcher=submitit_local", "hydra.sweep.dir=out",
        "lr=0.2,0.6", "hydra.launcher.timeout_min=1",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    trials = load_results(tmp_path / "out").trials.set_index("param.lr")
    assert dict(trials["state"]) == {0.2: "completed", 0.6: "failed"} and set(trials["attempts"]) == {1}
    assert "too fast" in trials["error"][0.6] and trials["seconds"].notna().all()
