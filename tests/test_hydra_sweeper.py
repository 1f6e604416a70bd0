"""The Hydra sweeper plugin: whole sweeps, what goes wrong in them, and going on after it."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.errors import CompactHydraException, ConfigCompositionException, HydraException
from hydra.test_utils.test_utils import SweepTaskFunction
from hydra_runs import LR, ONE, SMALL, WITHOUT_BASE, Multirun, hydras_own_base, peak
from omegaconf import DictConfig, OmegaConf

from orchestrator import load_results
from orchestrator.cli import main
from orchestrator.errors import UserError
from orchestrator.worker.job import check as check_job

pytestmark = WITHOUT_BASE
compatible = pytest.fixture(autouse=True)(hydras_own_base)


@pytest.fixture
def multirun(
    hydra_sweep_runner: Callable[..., SweepTaskFunction], hydra_restore_singletons: None, tmp_path: Path
) -> Multirun:
    return Multirun(hydra_sweep_runner, tmp_path / "multirun")


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
