"""A trial as one of TensorBoard's event files: curves, numbers, and what the HParams page shows of it.

The files are put together from TensorBoard's own messages and its own record writer. The functions of its
HParams plugin that do the same need TensorFlow.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tensorboard.compat.proto import event_pb2, summary_pb2, types_pb2
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
from tensorboard.plugins.text import metadata as text_metadata
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util.tensor_util import make_tensor_proto

from orchestrator.integrations.ended import OBJECTIVE, OUTCOME, Ended
from orchestrator.results.schema import text
from orchestrator.sweep.records import FAILED

VERSION = 1  # of what is written: a higher one replaces all files
# How a parameter's values are shown and sorted; a column has one type.
BOOL, NUMBER, TEXT = "bool", "number", "text"
# Of the trial itself, beside the parameters.
_OWN = {"sweep.stage": TEXT, "sweep.state": TEXT, "sweep.seed": NUMBER}
_TYPES = {
    BOOL: api_pb2.DATA_TYPE_BOOL,
    NUMBER: api_pb2.DATA_TYPE_FLOAT64,
    TEXT: api_pb2.DATA_TYPE_STRING,
}


def kinds_of(values: Iterable[tuple[str, Any]]) -> dict[str, str]:
    """Return for each parameter what all of its values are: truth values, numbers, or else texts.

    Args:
        values: names of parameters, each with one of its values.
    """
    kinds: dict[str, str] = {}
    for name, value in values:
        kind = BOOL if isinstance(value, bool) else NUMBER if isinstance(value, int | float) else TEXT
        kinds[name] = kind if kinds.get(name, kind) == kind else TEXT
    return kinds


def experiment_file(kinds: Mapping[str, str], metric: str, outcome: Iterable[str], at: float) -> bytes:
    """Return the file that tells the HParams page which columns there are.

    Args:
        kinds: of the parameters.
        metric: what the sweep optimises.
        outcome: names of the numbers that trials ended with.
        at: seconds since the epoch.
    """
    infos = [api_pb2.HParamInfo(name=name, type=_TYPES[kind]) for name, kind in (_OWN | dict(kinds)).items()]
    names = [OBJECTIVE, *sorted(set(outcome) - {OBJECTIVE})]
    shown = {name: name.removeprefix(OUTCOME) for name in names} | {
        OBJECTIVE: f"{OBJECTIVE} ({text(metric)})"
    }
    metrics = [
        api_pb2.MetricInfo(name=api_pb2.MetricName(tag=name), display_name=shown[name]) for name in names
    ]
    experiment = api_pb2.Experiment(hparam_infos=infos, metric_infos=metrics, time_created_secs=at)
    data = plugin_data_pb2.HParamsPluginData(experiment=experiment)
    return _file([_event(at, 0, _hparams(metadata.EXPERIMENT_TAG, data))], at)


def trial_file(trial: Ended, kinds: Mapping[str, str]) -> bytes:
    """Return the event file of one trial.

    Args:
        trial: that has ended.
        kinds: of the parameters.
    """
    status = api_pb2.STATUS_FAILURE if trial.state == FAILED else api_pb2.STATUS_SUCCESS
    start = plugin_data_pb2.SessionStartInfo(group_name=trial.trial_id, start_time_secs=trial.began)
    own = {"sweep.stage": trial.stage, "sweep.state": trial.state, "sweep.seed": trial.facts.get("seed")}
    for name, value in {**own, **trial.params}.items():
        kind = (_OWN | dict(kinds))[name]
        if kind == BOOL:
            start.hparams[name].bool_value = bool(value)
        elif kind == NUMBER and value is not None:
            start.hparams[name].number_value = float(value)
        elif kind == TEXT:
            start.hparams[name].string_value = text(value)
    end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=trial.ended)
    session = {
        metadata.SESSION_START_INFO_TAG: plugin_data_pb2.HParamsPluginData(session_start_info=start),
        metadata.SESSION_END_INFO_TAG: plugin_data_pb2.HParamsPluginData(session_end_info=end),
    }
    head = _event(trial.began, 0, *(_hparams(tag, data) for tag, data in session.items()))
    return _file([head, *figures(trial)], trial.began)


def figures(trial: Ended) -> Iterator[event_pb2.Event]:
    """Give the events of a trial's curves, of the numbers that it ended with, and of what went wrong."""
    steps: dict[int, list[tuple[float, str, float]]] = {}
    for name, points in trial.curves.items():
        for step, value, at in points:
            steps.setdefault(step, []).append((at, name, value))
    for step, reported in sorted(steps.items()):
        yield _event(max(at for at, _, _ in reported), step, *(_scalar(tag, v) for _, tag, v in reported))
    last = max(steps, default=0)
    if trial.outcome:
        yield _event(trial.ended, last, *(_scalar(tag, value) for tag, value in trial.outcome.items()))
    told = {name: trial.facts[name] for name in ("error", "diagnosis", "diagnosis_evidence", "members")
            if name in trial.facts}  # fmt: skip
    if told:
        yield _event(trial.ended, last, *(_text(name, str(words)) for name, words in told.items()))


def run_file(trial: Ended) -> bytes:
    """Return the event file of something that has numbers and no setting: the ensemble."""
    return _file(figures(trial), trial.began)


def _file(events: Iterable[event_pb2.Event], at: float) -> bytes:
    written = io.BytesIO()
    writer = RecordWriter(written)
    for event in (event_pb2.Event(wall_time=at, file_version="brain.Event:2"), *events):
        writer.write(event.SerializeToString(deterministic=True))
    return written.getvalue()


def _event(at: float, step: int, *values: summary_pb2.Summary.Value) -> event_pb2.Event:
    return event_pb2.Event(wall_time=at, step=step, summary=summary_pb2.Summary(value=values))


def _scalar(tag: str, value: float) -> summary_pb2.Summary.Value:
    return summary_pb2.Summary.Value(tag=tag, simple_value=value)


def _hparams(tag: str, data: plugin_data_pb2.HParamsPluginData) -> summary_pb2.Summary.Value:
    described = metadata.create_summary_metadata(data)
    return summary_pb2.Summary.Value(tag=tag, metadata=described, tensor=metadata.NULL_TENSOR)


def _text(tag: str, words: str) -> summary_pb2.Summary.Value:
    """Return words for the page of texts, which reads Markdown: as a block of code they stay as they are."""
    block = "\n".join(f"    {line}" for line in words.splitlines())
    tensor = make_tensor_proto(block.encode(), dtype=types_pb2.DT_STRING)
    described = text_metadata.create_summary_metadata(display_name="", description="")
    return summary_pb2.Summary.Value(tag=tag, metadata=described, tensor=tensor)
