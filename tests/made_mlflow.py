"""MLflow's client as far as sharing uses it, in memory: for tests where the package is not installed.

It refuses what MLflow refuses: names with other characters, a parameter with another value than before, and
calls with more than MLflow's limits.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from types import SimpleNamespace
from typing import Any, NamedTuple

NAME = re.compile(r"[/\w.\- :]{1,250}")


class Metric(NamedTuple):
    key: str
    value: float
    timestamp: int
    step: int


class Param(NamedTuple):
    key: str
    value: str


ENTITIES = SimpleNamespace(Metric=Metric, Param=Param)


@dataclass
class MadeRun:
    info: SimpleNamespace
    data: SimpleNamespace
    history: list[Metric] = field(default_factory=list)


class Page(list[MadeRun]):
    token: str | None = None


@dataclass
class MadeMlflow:
    """Experiments and runs in memory; `dies_after` calls that write it behaves as if killed."""

    experiments: dict[str, SimpleNamespace] = field(default_factory=dict)
    runs: dict[str, MadeRun] = field(default_factory=dict)
    dies_after: int | None = None
    calls: list[str] = field(default_factory=list)
    _ids: Any = field(default_factory=lambda: count(1))

    def _call(self, name: str) -> None:
        if self.dies_after is not None and len(self.calls) >= self.dies_after:
            raise KeyboardInterrupt
        self.calls.append(name)

    def get_experiment_by_name(self, name: str) -> SimpleNamespace | None:
        return self.experiments.get(name)

    def create_experiment(self, name: str, tags: Mapping[str, str] | None = None) -> str:
        self._call("create_experiment")
        made = SimpleNamespace(experiment_id=name, lifecycle_stage="active", tags=dict(tags or {}))
        self.experiments[name] = made
        return name

    def set_experiment_tag(self, experiment: str, key: str, value: str) -> None:
        self._call("set_experiment_tag")
        self.experiments[experiment].tags[key] = value

    def search_runs(
        self, experiments: Sequence[str], max_results: int = 1000, page_token: str | None = None
    ) -> Page:
        known = [run for run in self.runs.values() if run.info.experiment_id in experiments]
        alive = [run for run in known if run.info.lifecycle_stage == "active"]
        start = int(page_token or 0)
        page = Page(alive[start : start + max_results])
        page.token = str(start + max_results) if len(alive) > start + max_results else None
        return page

    def create_run(self, experiment: str, start_time: int, tags: Mapping[str, str], run_name: str) -> MadeRun:
        self._call("create_run")
        assert all(NAME.fullmatch(key) and len(value) <= 8000 for key, value in tags.items())
        info = SimpleNamespace(
            run_id=f"r{next(self._ids)}",
            experiment_id=experiment,
            run_name=run_name,
            status="RUNNING",
            start_time=start_time,
            end_time=None,
            lifecycle_stage="active",
        )
        run = MadeRun(info, SimpleNamespace(tags=dict(tags), params={}, metrics={}))
        self.runs[info.run_id] = run
        return run

    def log_batch(self, run_id: str, metrics: Sequence[Metric] = (), params: Sequence[Param] = ()) -> None:
        self._call("log_batch")
        assert len(metrics) + len(params) <= 1000 and len(params) <= 100
        data = self.runs[run_id].data
        for key, value in params:
            assert NAME.fullmatch(key) and posixpath.normpath(key) == key and len(value) <= 6000
            assert data.params.setdefault(key, value) == value
        for metric in metrics:
            assert NAME.fullmatch(metric.key) and posixpath.normpath(metric.key) == metric.key
            self.runs[run_id].history.append(metric)
            data.metrics[metric.key] = metric.value

    def set_terminated(self, run_id: str, status: str, end_time: int) -> None:
        self._call("set_terminated")
        self.runs[run_id].info.status, self.runs[run_id].info.end_time = status, end_time

    def delete_run(self, run_id: str) -> None:
        self._call("delete_run")
        self.runs[run_id].info.lifecycle_stage = "deleted"

    def get_metric_history(self, run_id: str, key: str) -> list[Metric]:
        return [metric for metric in self.runs[run_id].history if metric.key == key]
