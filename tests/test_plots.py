"""Figures of sweeps that are empty, small, running, large, or have what nobody expects in them."""

from __future__ import annotations

import pkgutil
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from made_tables import METRIC, make_results

import orchestrator
from figure_texts import strings
from orchestrator import Results, UserError, plots
from orchestrator.plots.narrowing import ranges_apart
from orchestrator.plots.responses import slices_apart
from orchestrator.plots.theme import numbers
from orchestrator.plots.uprights import ABSENT, of_numbers, of_parameter
from orchestrator.results.analysis import ranks, shown
from orchestrator.results.more_data import MoreData
from orchestrator.results.spending import SAMPLES, SECONDS, TRIALS, progress, spending, unit_of
from orchestrator.results.trust import importances

HOSTILE = "<img src=x onerror=alert(1)>$x$ "


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return make_results(tmp_path_factory.mktemp("made"), (60, 20, 6))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return make_results(tmp_path_factory.mktemp("large"), (7000, 2500, 500), parameters=12, steps=50)


def drawn(results: Results) -> dict[str, go.Figure]:
    return {name: getattr(plots, name)(results) for name in plots.__all__}


def without(results: Results, keep: int) -> Results:
    """The same with only so many trials, and their curves."""
    trials = results.trials.head(keep)
    curves = results.curves[results.curves["trial_id"].isin(trials["trial_id"])]
    return replace(results, trials=trials, curves=curves)


@pytest.mark.parametrize("keep", [0, 1, 25])
def test_every_figure_is_drawn_of_a_sweep_that_has_begun(results: Results, keep: int) -> None:
    for name, figure in drawn(without(results, keep)).items():
        assert figure.to_json(), name
        said = [text for text in strings(figure.to_dict()) if re.search("[Tt]oo few|No ", text)]
        assert figure.data or said, f"{name} is empty and says not why"


def test_one_stage_is_not_compared(results: Results) -> None:
    assert "Only one stage" in plots.rank_correlation(replace(results, stages=["stage0"])).to_json()


def test_every_figure_is_drawn_of_what_went_wrong(results: Results) -> None:
    trials = results.trials.assign(state="failed", objective=np.nan)
    trials.loc[::3, ["state", "objective"]] = "diverged", -np.inf
    for figure in drawn(replace(results, trials=trials)).values():
        assert "Infinity" not in figure.to_json()


def test_every_figure_is_drawn_without_curves_and_without_parameters(results: Results) -> None:
    kept = [name for name in results.trials.columns if not name.startswith("param.")]
    bare = replace(results, trials=results.trials[kept], curves=results.curves.head(0), spaces={})
    for name in ("ranges", "slices", "parallel_coordinates"):
        assert "No parameters" in getattr(plots, name)(bare).to_json()
    assert all(figure.to_json() for figure in drawn(bare).values())


def test_no_text_of_the_users_is_markup(results: Results) -> None:
    names = {name: HOSTILE + name for name in results.stages}
    trials = results.trials.rename(columns=lambda name: name.replace("param.", f"param.{HOSTILE}"))
    trials["stage"] = trials["stage"].cat.rename_categories(names)
    trials["trial_id"] = HOSTILE + trials["trial_id"]
    trials["parent"] = HOSTILE + trials["parent"]
    phases = [{**phase, "name": names[phase["name"]]} for phase in results.plan["phases"]]
    members = [{"trial_id": HOSTILE, "step": HOSTILE, "weight": 1.0}]
    ablation = [{"kinds": [HOSTILE], "gain": 0.1}]
    hostile = replace(
        results,
        metric=HOSTILE + METRIC,
        stages=list(names.values()),
        trials=trials,
        curves=results.curves.assign(
            trial_id=HOSTILE + results.curves["trial_id"],
            metric=HOSTILE + METRIC,
            stage=results.curves["stage"].cat.rename_categories(names),
        ),
        spaces={
            names[stage]: {HOSTILE + name: spec for name, spec in space.items()}
            for stage, space in results.spaces.items()
        },
        plan={"phases": phases},
        ensemble={"score": HOSTILE, "members": members, "ablation": ablation, "test": {"ensemble": 0.9}},
    )
    figures = drawn(hostile)
    assert all(len(figure.data) for figure in figures.values())
    for name, figure in figures.items():
        texts = list(strings(figure.to_dict()))
        assert not [text for text in texts if re.search(r"<(?!/?b>|br>|/?extra>)|\$", text)], name
    assert any("&lt;img" in text for text in strings(figures["parallel_coordinates"].to_dict()))


def test_figures_of_ten_thousand_trials_are_small(large: Results) -> None:
    sizes = {name: len(figure.to_json()) for name, figure in drawn(large).items()}
    assert sum(sizes.values()) < 2_500_000, sizes


def test_small_stages_keep_all_when_large_ones_are_thinned(large: Results) -> None:
    rows = shown(large, 1500)
    assert len(rows["stage2"]) == 500
    assert [len(rows[stage]) for stage in large.stages] == [500, 500, 500]
    assert sum(map(len, shown(large, 1600).values())) == 1600
    for stage in large.stages:
        assert rows[stage]["trial_id"].iloc[-1] == large.best(1, stage)["trial_id"].iloc[0]


def test_ranks_are_of_the_whole_stage(results: Results) -> None:
    rank = ranks(results)
    best = results.best(1, "stage1").index[0]
    assert rank[best] == 1.0
    assert rank[results.at("stage1").index].min() == pytest.approx(1 / 20)
    lowest = ranks(replace(results, mode="min"))
    assert lowest[best] == pytest.approx(1 / 20)
    assert ranks(replace(results, trials=results.trials.assign(objective=np.inf))).isna().all()


def test_figures_apart_are_those_of_each_parameter_alone(results: Results) -> None:
    ranges, slices = ranges_apart(results), slices_apart(results)
    assert list(ranges) == list(slices) == results.parameters
    for name in results.parameters:
        assert ranges[name].to_json() == plots.ranges(results, [name]).to_json()
        alone = plots.slices(results, [name]).update_layout(showlegend=False, margin={"t": 12})
        assert slices[name].to_dict()["layout"] == alone.to_dict()["layout"]
        assert slices[name].data == alone.data


def test_numbers_lose_nothing_that_is_seen() -> None:
    assert numbers([0.1, 1e-4, np.nan]).dtype == np.float32
    assert numbers([1e300]).tolist() == [1e300]
    assert numbers([1e-60, 1.0]).tolist() == [1e-60, 1.0]


def test_parallel_coordinates_go_through_every_parameter(results: Results) -> None:
    figure = plots.parallel_coordinates(results)
    axis = figure.layout.xaxis
    assert list(axis.ticktext) == [
        "stage",
        "lr",
        "optimizer",
        "optimizer.momentum",
        "p03",
        "rank in its stage",
    ]
    lines = [trace for trace in figure.data if trace.showlegend is None]
    assert sum(list(trace.x).count(None) for trace in lines) == len(results.trials)
    best = results.best(1, "stage0")["trial_id"].iloc[0]
    assert any(best in text for text in lines[-1].text), "the best are drawn last, on top"
    assert "do not have the parameter" in figure.layout.annotations[0].text
    one = plots.parallel_coordinates(results, "stage1")
    assert list(one.layout.xaxis.ticktext)[-1] == METRIC
    assert one.layout.xaxis.ticktext[0] == "lr"
    with pytest.raises(UserError, match="stage9"):
        plots.parallel_coordinates(results, "stage9")


def test_upright_axes_have_decades_choices_and_a_place_for_what_is_not_there(results: Results) -> None:
    lr = of_parameter(results, "lr", results.trials, results.stages)
    assert lr.ticks == [(0.0, "0.0001"), (0.25, "0.001"), (0.5, "0.01"), (0.75, "0.1"), (1.0, "1")]
    assert lr.places[0] == pytest.approx((np.log10(results.trials["param.lr"][0]) + 4) / 4, abs=1e-3)
    optimizer = of_parameter(results, "optimizer", results.trials, results.stages)
    assert [said for _, said in optimizer.ticks] == ["sgd", "adam", "&lt;b&gt;&amp;"]
    momentum = of_parameter(results, "optimizer.momentum", results.trials, results.stages)
    absent = results.trials["param.optimizer.momentum"].isna()
    assert [place == ABSENT for place in momentum.places] == absent.tolist()
    assert {said for said, gone in zip(momentum.values, absent, strict=True) if gone} == {"not there"}
    alike = of_numbers("x", pd.Series([2.0, 2.0]))
    assert alike.places == [0.5, 0.5]
    assert alike.ticks == [(0.5, "2")]
    loss = of_numbers("x", pd.Series([1.0, 3.0]), falling=True)
    assert loss.places == [1.0, 0.0], "the best is on top"
    assert loss.ticks[0] == (1.0, "1")


def test_whole_numbers_have_whole_ticks(results: Results) -> None:
    depth = {"kind": "int", "low": 1, "high": 3, "log": False, "reason": "as declared"}
    trials = results.trials.assign(**{"param.depth": [1, 3] * 43})
    deep = replace(results, trials=trials, spaces={"stage0": {"depth": depth}})
    assert [said for _, said in of_parameter(deep, "depth", trials, ["stage0"]).ticks] == ["1", "2", "3"]
    assert plots.slices(deep, ["depth"]).layout.xaxis.dtick == 1
    assert plots.slices(without(deep, 0), ["depth"]).layout.xaxis.dtick is None


def test_a_log_axis_with_a_value_that_has_no_logarithm_is_linear(results: Results) -> None:
    trials = results.trials.copy()
    trials.loc[0, "param.lr"] = 0.0
    odd = of_parameter(replace(results, trials=trials), "lr", trials, results.stages)
    assert odd.places[0] == 0.0
    assert all(0 <= place <= 1 for place in odd.places)


def test_importance_shows_what_matters_most_on_top(results: Results) -> None:
    shares = importances(results)
    assert max(shares["stage0"], key=lambda name: shares["stage0"][name]) == "lr"
    assert "stage2" not in shares, "six trials can't tell"
    figure = plots.importance(results, {"stage0": {"p03": 0.2, "lr": 0.8}, "stage1": {"p03": 0.9, "lr": 0.1}})
    assert list(figure.data[0].y) == ["p03", "lr"]
    assert list(figure.data[1].x) == [0.9, 0.1]


def test_cost_is_spent_as_far_as_trials_came(results: Results) -> None:
    trials, curves = results.trials.copy(), results.curves
    trials.loc[0, "state"] = "pruned"
    curves = curves[(curves["trial_id"] != "trial-00000") | (curves["step"] == 1)]
    trials.loc[1, "state"] = "failed"
    curves = curves[curves["trial_id"] != "trial-00001"]
    first, *_ = spending(replace(results, trials=trials, curves=curves))
    assert first.planned == {
        TRIALS: 60.0,
        SAMPLES: 60 * 100 * 3.0,
        SECONDS: pytest.approx(np.nan, nan_ok=True),
    }
    assert first.spent[SAMPLES] == pytest.approx(58 * 300 + 100)
    assert first.spent[SECONDS] == 60 * 6.0
    assert unit_of([first]) == SAMPLES
    begun = spending(without(results, 25))
    assert begun[0].spent[TRIALS] == 25
    assert np.isnan(begun[1].spent[SECONDS])


def test_the_best_so_far_grows_with_the_cost_of_all_stages(results: Results) -> None:
    for mode in ("max", "min"):
        rows = progress(replace(results, mode=mode), TRIALS)
        assert rows["cost"].tolist() == list(range(1, 87))
        for stage in results.stages:
            objective = results.at(stage)["objective"]
            best = rows[rows["stage"] == stage]["best"]
            assert best.iloc[-1] == (objective.max() if mode == "max" else objective.min())
            assert best.is_monotonic_increasing if mode == "max" else best.is_monotonic_decreasing
    figure = plots.cost(results)
    planned, spent, *bests = figure.data
    assert list(planned.x) == list(spent.x)
    assert [bests[0].x[-1], bests[2].y[-1]] == [
        18000,
        pytest.approx(results.at("stage2")["objective"].max(), 1e-5),
    ]
    assert len(plots.cost(results, columns=1).data) == len(figure.data)


def test_the_ensemble_is_drawn_from_what_there_is_of_it(results: Results) -> None:
    found = {
        "score": "accuracy",
        "combine": "greedy",
        "test": {"best_single": 0.9, "ensemble": 0.92, "soup": None},
        "test_intervals": {"ensemble": [0.91, 0.94]},
        "methods": {"greedy": {"value": 0.92}, "average": {"value": 0.91, "low": 0.9, "high": None}},
        "gains": {"over_best_single": {"value": 0.02, "low": -0.01, "high": 0.03}},
        "members": [{"trial_id": "a", "step": 3, "weight": 1.0}, {"trial_id": "a", "step": 3, "weight": 3}],
    }
    scores, gains, members = plots.ensemble(replace(results, ensemble=found)).data
    assert list(scores.y) == ["best single model", "ensemble", "plain average"]
    assert list(scores.error_x.array) == pytest.approx([0, 0.02, 0])
    assert list(scores.error_x.arrayminus) == pytest.approx([0, 0.01, 0.01])
    assert list(gains.x) == [0.02]
    assert list(members.x) == [0.75, 0.25]
    assert len(set(members.y)) == 2
    many = [{"trial_id": str(n), "weight": 1.0} for n in range(30)]
    assert list(plots.ensemble(replace(results, ensemble={"members": many})).data[0].y)[-1] == "20 more"


@pytest.mark.parametrize(
    "found",
    [{"version": 2}, {"members": "x", "test": 3, "gains": {"over_best_single": 1}, "ablation": [4]},
     {"members": [{"weight": "NaN"}], "test": {"ensemble": "high"}, "score": None}],
)  # fmt: skip
def test_a_damaged_ensemble_is_no_figure_but_no_error(results: Results, found: dict[str, Any]) -> None:
    assert not plots.ensemble(replace(results, ensemble=found)).data


def test_more_data_draws_the_law_and_what_it_leaves_out(results: Results) -> None:
    plain = plots.more_data(results)
    assert [trace.x[0] for trace in plain.data] == [100, 300, 900]
    law = MoreData(
        error=f"1 - {METRIC}", points=(), left_out={"stage0": "other classes"}, samples=(300.0, 900.0),
        low=(0.1, 0.05), middle=(0.2, 0.1), high=(0.3, 0.2),
    )  # fmt: skip
    band, curve, first, *_ = plots.more_data(results, law).data
    assert list(curve.y) == [0.8, 0.9]
    assert list(band.y) == [0.9, 0.95, 0.8, 0.7]
    assert first.marker.symbol == "circle-open"
    assert "other classes" in first.text[0]
    unknown = MoreData(error="e", points=(), left_out={}, reason="too few")
    assert len(plots.more_data(results, unknown).data) == 3
    phases = [{**phase, "samples": None} for phase in results.plan["phases"]]
    assert not plots.more_data(replace(results, plan={"phases": phases})).data


def test_no_function_has_the_name_of_a_module() -> None:
    modules = {module.name for module in pkgutil.iter_modules(plots.__path__)}
    assert not modules & set(plots.__all__), "importing the module would hide the function"
    assert set(plots.__all__) <= set(dir(plots))
    with pytest.raises(AttributeError, match="violin"):
        plots.violin  # noqa: B018


def test_nothing_heavy_is_loaded_before_it_is_used() -> None:
    code = (
        "import sys; from orchestrator import load_results, plots; "
        "print(*{'pandas', 'plotly', 'pyarrow', 'numpy', 'torch'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


def test_what_the_package_gives_is_documented() -> None:
    page = (Path(__file__).parents[1] / "docs" / "analysing.md").read_text()
    assert "sweeps/digits" in str(orchestrator.load_results.__doc__)
    for name in plots.__all__:
        function = getattr(plots, name)
        assert function.__doc__, name
        assert f"| `{name}(results" in page
        assert function.__annotations__["return"] == "go.Figure", name
        assert function.__annotations__["results"] == "Results", name


def test_figures_and_results_know_nothing_of_the_report() -> None:
    package = Path(orchestrator.__file__).parent
    modules = [*(package / "plots").glob("*.py"), *(package / "results").glob("*.py")]
    assert len(modules) > 20
    assert not [path.name for path in modules if "orchestrator.report" in path.read_text()]
