"""The ladder and its price, on the example by hand and on a user's own job."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from own_job import OWN_JOB, own

from orchestrator.config import load_sweep
from orchestrator.control.create import work_out
from orchestrator.errors import UserError
from orchestrator.planning.cost import Price, phase_cost, total_cost
from orchestrator.planning.plan import Cost, Phase, Plan, plan_from_json, plan_to_json
from orchestrator.schema import SlurmConfig
from orchestrator.sweep.directory import CHECKS, ENSEMBLE, FINAL, STAGE

DIGITS = Path(__file__).parent.parent / "examples" / "digits.yaml"
OWN = f"""\
{OWN_JOB}stages:
  coarse: {{trials: 10, data: 0.5, epochs: 1}}
  fine: {{trials: 7}}
final: {{top: 2, seeds: 2}}
"""


def phases(plan: Plan) -> dict[str, Phase]:
    return {phase.name: phase for phase in plan.phases}


def test_digits_by_hand(here: Path) -> None:
    plan = work_out(DIGITS, ["slurm.cpus_per_task=2"]).plan
    ladder = phases(plan)
    assert [(p.kind, p.name) for p in plan.phases] == [
        (CHECKS, "checks"), (STAGE, "coarse"), (STAGE, "medium"), (STAGE, "fine"), (FINAL, "final"),
        (ENSEMBLE, "ensemble"),
    ]  # fmt: skip
    assert [p.trials for p in plan.phases] == [1, 64, 24, 12, 9, 9 + 1]
    # 1,797 samples: about 108 of each class are for training. A tenth of two classes is 21.6, of which
    # whole classes make 21; 0.3 of five is 162.
    assert [p.samples for p in plan.phases[1:5]] == [21, 162, 1079, 1079]
    assert [p.scale.classes for p in plan.phases[1:5]] == [2, 5, None, None]
    assert [p.scale.epochs for p in plan.phases[1:5]] == [3, 6, 10, 60]
    # A quarter of a stage is promoted to it, and an eighth for comparison.
    assert [(p.survivors, p.controls) for p in plan.phases[1:5]] == [(0, 0), (6, 3), (3, 1), (3, 0)]
    assert ladder["final"].scale.checkpoints == 5
    assert ladder["fine"].sampler == "tpe"
    # 0.15 s for each trial and 1.5e-5 s for each sample.
    coarse = ladder["coarse"].cost
    assert coarse.trained_samples == 64 * 21 * 3
    assert coarse.seconds == pytest.approx(64 * 0.15 + 64 * 21 * 3 * 1.5e-5)
    assert coarse.hours == pytest.approx((9.6 + 0.06048) / 3600)
    assert ladder["ensemble"].cost == Cost()
    trained = 64 * 21 * 3 + 24 * 162 * 6 + 12 * 1079 * 10 + 9 * 1079 * 60
    assert plan.total.trained_samples == trained == 739_500
    assert plan.total.seconds == pytest.approx(109 * 0.15 + trained * 1.5e-5)
    # As many trials at full scale: 109 of 1,079 samples and 60 epochs.
    assert plan.full_scale_share == pytest.approx(739_500 / (109 * 1079 * 60))
    assert (plan.unit, plan.warnings, plan.name, plan.metric, plan.mode) == (
        "core", (), "digits", "val/accuracy", "max",
    )  # fmt: skip
    # This machine: one task with all trials.
    assert [(p.batch, p.tasks, p.array) for p in plan.phases[1:5]] == [
        (64, 1, 1), (24, 1, 1), (12, 1, 1), (9, 1, 1),
    ]  # fmt: skip


def test_digits_on_gpus(here: Path) -> None:
    plan = work_out(DIGITS, ["slurm=gpu", "slurm.tasks_at_once=8"]).plan
    # A stage of some seconds is one task of a job that is meant to last ten minutes.
    assert [(p.batch, p.tasks, p.array) for p in plan.phases[1:5]] == [
        (64, 1, 1), (24, 1, 1), (12, 1, 1), (9, 1, 1),
    ]  # fmt: skip
    plan = work_out(DIGITS, ["slurm=gpu", "slurm.tasks_at_once=8", "slurm.task_minutes=0.02"]).plan
    coarse = plan.stages[0]
    seconds_of_a_task = coarse.cost.seconds / coarse.trials * coarse.batch if coarse.cost.seconds else 0
    assert 0.6 < seconds_of_a_task <= 1.2
    assert coarse.tasks == 64 // coarse.batch + (64 % coarse.batch > 0)
    assert coarse.array == min(8, coarse.tasks)
    assert plan.unit == "GPU"
    assert phases(plan)["coarse"].cost.hours == pytest.approx(9.66048 / 3600)
    shared = work_out(DIGITS, ["slurm=gpu", "slurm.trials_at_once=4"]).plan
    assert phases(shared)["coarse"].cost.hours == pytest.approx(9.66048 / 3600 / 4)
    assert phases(shared)["coarse"].batch == 64
    # Seconds of one trial: 0.15 + 21 * 3 * 1.5e-5 = 0.150945; a task of 0.01 minutes holds three of them.
    short = work_out(DIGITS, ["slurm=gpu", "slurm.tasks_at_once=2", "slurm.task_minutes=0.01"]).plan
    assert phases(short)["coarse"].batch == 3
    assert (phases(short)["coarse"].tasks, phases(short)["coarse"].array) == (22, 2)
    cores = work_out(DIGITS, ["slurm=cpu"]).plan
    assert cores.unit == "core"
    assert phases(cores)["coarse"].cost.hours == pytest.approx(2 * 9.66048 / 3600)


def test_planning_the_same_file_twice_differs_only_in_its_token_and_time(here: Path) -> None:
    one, other = work_out(DIGITS, []).plan, work_out(DIGITS, []).plan
    assert one.uid != other.uid
    assert replace(one, uid="", created=0.0) == replace(other, uid="", created=0.0)


def test_plan_json_round_trip(here: Path) -> None:
    for overrides in ([], ["slurm=gpu"], ["stages.coarse.classes=[1,7]"], ["final.top=0"]):
        plan = work_out(DIGITS, overrides).plan
        content = json.loads(json.dumps(plan_to_json(plan), allow_nan=False))
        assert plan_from_json(content) == plan
        assert content["version"] == 1
        assert content["metric"] == {"name": "val/accuracy", "mode": "max"}
    without = own(OWN).plan
    assert plan_from_json(json.loads(json.dumps(plan_to_json(without)))) == without


def test_listed_classes_are_counted(here: Path) -> None:
    coarse = phases(work_out(DIGITS, ["stages.coarse.classes=[1,7]", "stages.coarse.data=1.0"]).plan)[
        "coarse"
    ]
    assert (coarse.scale.classes, coarse.scale.class_list) == (2, (1, 7))
    # Of the 1,797 samples the first seven classes are taken to have 180 each, the others 179.
    assert coarse.samples == 108 + 107


def test_a_count_of_samples_is_that_many(here: Path) -> None:
    ladder = phases(work_out(DIGITS, ["stages.fine.data=500"]).plan)
    assert ladder["fine"].samples == pytest.approx(500, abs=5)


def test_without_final_runs_the_largest_stage_is_full_scale(here: Path) -> None:
    plan = work_out(DIGITS, ["final.top=0", "stages.medium.data=200"]).plan
    assert [p.kind for p in plan.phases] == [CHECKS] + [STAGE] * 3
    assert plan.final is None
    assert plan.ensemble is None
    medium = phases(plan)["medium"].samples
    assert medium is not None
    trained = 64 * 21 * 3 + 24 * medium * 6 + 12 * 1079 * 10
    assert plan.full_scale_share == pytest.approx(trained / (100 * 1079 * 10))


def test_a_users_own_job_without_dataset_or_cost(here: Path) -> None:
    planned = own(OWN)
    assert planned.plan.folder == str(here)
    assert planned.directory.path == here / "sweeps" / "tiny"
    assert [p.kind for p in planned.plan.phases] == [STAGE, STAGE, FINAL], "no predict, no ensemble"
    assert all(p.samples is None for p in planned.plan.phases)
    assert all(p.cost == Cost() for p in planned.plan.phases)
    assert planned.plan.total == Cost()
    assert planned.plan.full_scale_share is None
    fine, final = planned.plan.phases[1:]
    assert (fine.survivors, fine.controls) == (1, 0)
    assert (final.trials, final.survivors) == (4, 2)
    assert not Path("sweeps").exists()


def test_a_users_own_job_on_a_cluster_without_cost_spreads_its_trials(here: Path) -> None:
    planned = own(OWN, "slurm=gpu", "slurm.tasks_at_once=4")
    assert [(p.batch, p.tasks, p.array) for p in planned.plan.phases] == [(3, 4, 4), (2, 4, 4), (1, 4, 4)]


def test_a_price_with_seconds_per_trial_alone(here: Path) -> None:
    planned = own(OWN.replace("  scale:", "  cost: {startup_seconds: 360}\n  scale:"), "slurm=gpu")
    assert [p.cost.seconds for p in planned.plan.phases] == [3600, 2520, 1440]
    assert planned.plan.total.hours == pytest.approx(2.1)
    assert planned.plan.total.trained_samples is None


def test_survivors_and_controls_as_told(here: Path) -> None:
    planned = own(OWN.replace("{trials: 7}", "{trials: 7, survivors: 3, controls: 0}"))
    assert (planned.plan.phases[1].survivors, planned.plan.phases[1].controls) == (3, 0)


def test_the_first_stage_has_nobody_to_promote(here: Path) -> None:
    planned = own(OWN.replace("{trials: 10,", "{trials: 10, survivors: 3,"))
    assert (planned.plan.phases[0].survivors, planned.plan.phases[0].controls) == (0, 0)


def test_warnings_about_grids_and_linear_ranges(here: Path) -> None:
    grid = work_out(
        DIGITS, ["stages.coarse.sampler=grid", "space.optimizer.lr=interval(1e-4, 1)"]
    ).plan.warnings
    assert any(text.startswith("optimizer.lr: a linear range over three decades") for text in grid)
    assert any(
        text.startswith("stages.coarse: a grid over 5 parameters gives each about 2.3") for text in grid
    )


def test_before_is_the_phase_before(here: Path) -> None:
    plan = work_out(DIGITS, []).plan
    assert plan.before(plan.phases[0]) is None
    assert plan.before(plan.phases[3]) == plan.phases[2]
    assert [p.name for p in plan.stages] == ["coarse", "medium", "fine"]


def test_costs_add_up_as_far_as_they_are_known() -> None:
    known = Cost(trained_samples=10.0, seconds=2.0, hours=1.0)
    assert total_cost([known, known, Cost()]) == Cost(trained_samples=20.0, seconds=4.0, hours=2.0)
    assert total_cost([known, Cost(seconds=3.0)]) == Cost(seconds=5.0)
    assert total_cost([]) == Cost()
    price = Price(startup_seconds=1.0, sample_seconds=None, unit="core", share=2.0)
    assert phase_cost(price, 3, None, None) == Cost(seconds=3.0, hours=6 / 3600)
    sampled = Price(startup_seconds=1.0, sample_seconds=0.5, unit="core", share=2.0)
    assert phase_cost(sampled, 3, None, 2.0) == Cost()
    assert phase_cost(sampled, 3, 10, 2.0) == Cost(trained_samples=60.0, seconds=33.0, hours=66 / 3600)


@pytest.mark.parametrize(
    ("slurm", "unit", "share"),
    [
        (SlurmConfig(gpus_per_task=1, cpus_per_task=4), "GPU", 1.0),
        (SlurmConfig(gpus_per_task=2, trials_at_once=4), "GPU", 0.5),
        (SlurmConfig(cpus_per_task=4, trials_at_once=0), "core", 1.0),
        (SlurmConfig(cpus_per_task=4), "core", 4.0),
    ],
)
def test_what_a_trial_holds(slurm: SlurmConfig, unit: str, share: float) -> None:
    config = load_sweep(DIGITS)
    config.slurm = slurm
    price = Price.of(config)
    assert (price.unit, price.share) == (unit, share)


def test_a_plan_of_before_waves_is_read(here: Path) -> None:
    plan = own(OWN).plan
    content = plan_to_json(plan)
    for phase in content["phases"]:
        for key in ("waves", "close", "prune", "repeats", "tune"):
            del phase[key]
    assert plan_from_json(content) == plan


def test_how_a_stage_goes_is_planned_and_priced(here: Path) -> None:
    text = OWN.replace(
        "coarse: {trials: 10, data: 0.5, epochs: 1}",
        "coarse: {trials: 10, data: 0.5, epochs: 1, waves: 2, repeats: 2, close: 0.9, prune: 3, tune: [lr]}",
    ).replace("jobs:\n", "jobs:\n  cost: {startup_seconds: 2.0}\n")
    plan = own(text, "slurm.tasks_at_once=3").plan
    coarse = phases(plan)["coarse"]
    assert (coarse.trials, coarse.runs, coarse.wave_sizes) == (10, 12, (5, 5, 2))
    assert (coarse.close, coarse.prune, coarse.tune) == (0.9, 3.0, ("lr",))
    assert coarse.cost.seconds == 24.0, "the repeats are paid for too"
    # What runs side by side is a wave: 2, 2, 1 twice, then the repeats.
    assert (coarse.batch, coarse.tasks, coarse.array) == (2, 7, 3)
    assert plan_from_json(json.loads(json.dumps(plan_to_json(plan)))) == plan


def test_inputs_are_changed_at_random_only_once_all_data_are_seen(here: Path) -> None:
    text = OWN.replace("epochs: 10}", "epochs: 10, augmentation: {enabled: true, flip: true}}")
    text = text.replace("epochs: epochs}", "epochs: epochs, augment: augmentation.enabled}")

    def scales(*overrides: str) -> list[bool | None]:
        return [phase.scale.augment for phase in own(text, *overrides).plan.phases]

    assert scales() == [False, None, None]
    assert scales("stages.coarse.augment=true", "stages.fine.augment=false") == [True, False, None]
    # Where it is itself searched, every stage has it.
    assert scales("space.augmentation.flip=choice(true,false)") == [None, None, None]


def test_a_resolution_needs_a_place_in_the_job(here: Path) -> None:
    with pytest.raises(UserError, match=r"stages.coarse.resolution: the job has no place for it"):
        own(OWN, "stages.coarse.resolution=14")
    text = OWN.replace("epochs: epochs}", "epochs: epochs, resolution: side}").replace(
        "lr: 0.1,", "lr: 0.1, side: 28,"
    )
    planned = own(text, "stages.coarse.resolution=14").plan
    assert [phase.scale.resolution for phase in planned.phases] == [14, None, None]
