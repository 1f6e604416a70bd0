"""Facts made by hand, for the tests of decisions: no file and no cluster."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from orchestrator.cluster.interface import ACTIVE, ENDED, PENDING, TaskStatus
from orchestrator.control.decide import Limits, TaskKey
from orchestrator.planning.plan import Cost, Phase, Plan, Scale
from orchestrator.sweep.directory import ENSEMBLE, FINAL, STAGE, TrialSpec
from orchestrator.sweep.facts import Facts, PhaseFacts
from orchestrator.sweep.records import COMPLETED, Outcome
from orchestrator.sweep.submissions import Intent, Loss, Receipt, Refusal, Submission

COARSE = Phase(kind=STAGE, name="coarse", trials=6, scale=Scale(), batch=2, tasks=3)
FINE = Phase(kind=STAGE, name="fine", trials=2, scale=Scale(), batch=2)
LAST = Phase(kind=FINAL, name=FINAL, trials=2, survivors=1, scale=Scale())
TOGETHER = Phase(kind=ENSEMBLE, name=ENSEMBLE, trials=1, scale=Scale())
PLAN = Plan(
    uid="ab", name="tiny", metric="acc", mode="max", created=0.0, folder="/x", unit="core",
    phases=(COARSE, FINE, LAST, TOGETHER), total=Cost(), full_scale_share=None,
)  # fmt: skip
TRIALS = ("a", "b", "c", "d", "e", "f")
ANY = Limits(attempts=3)


def specs(names: Iterable[str]) -> tuple[TrialSpec, ...]:
    return tuple(TrialSpec(trial_id=name, setting_id=name, params={}, seed=0) for name in names)


def outcome(trial: str, state: str = COMPLETED, error: str = "", acc: float = 0.5) -> Outcome:
    return Outcome(trial=trial, state=state, metrics={"acc": acc}, seconds=1.0, error=error, submission=1)


def ended(
    names: Iterable[str], state: str = COMPLETED, error: str = "", acc: float = 0.5
) -> dict[str, Outcome]:
    return {name: outcome(name, state, error, acc) for name in names}


def submission(
    number: int,
    *tasks: tuple[str, ...],
    receipt: bool = True,
    abandoned: bool = False,
    losses: Mapping[int, Loss] | None = None,
) -> Submission:
    return Submission(
        intent=Intent(number=number, token=f"t{number}", tasks=tasks, created=0.0, host="h"),
        receipt=Receipt(jobs=tuple(f"{number}_{i}" for i in range(len(tasks)))) if receipt else None,
        refusal=Refusal("nothing of it is left") if abandoned else None,
        losses=losses or {},
    )


def coarse(
    *submissions: Submission, outcomes: Mapping[str, Outcome] | None = None, **more: object
) -> PhaseFacts:
    known = PhaseFacts(
        phase=COARSE, waves=1, trials=specs(TRIALS), outcomes=outcomes or {}, submissions=submissions
    )
    return replace(known, **more)  # type: ignore[arg-type]


def facts(*phases: PhaseFacts, checked: bool = True, cancelled: bool = False, compacted: int = 99) -> Facts:
    rest = tuple(PhaseFacts(phase=phase) for phase in PLAN.phases[len(phases) :])
    return Facts(
        plan=PLAN, phases=(*phases, *rest), checked=checked, cancelled=cancelled, compacted=compacted
    )


def states(number: int, *of: TaskStatus) -> dict[TaskKey, TaskStatus]:
    return {("coarse", number, index): status for index, status in enumerate(of)}


UP, WAITING, GONE = TaskStatus(ACTIVE), TaskStatus(PENDING), TaskStatus(ENDED, "NODE_FAIL")
FULL = (("a", "b"), ("c", "d"), ("e", "f"))


def whole(*, compacted: int = 99, acc: float = 0.5, state: str = COMPLETED) -> Facts:
    fine = PhaseFacts(phase=FINE, waves=1, trials=specs("gh"), outcomes=ended("gh", state, acc=acc))
    last = PhaseFacts(phase=LAST, waves=1, trials=specs("ij"), outcomes=ended("ij"))
    together = PhaseFacts(phase=TOGETHER, waves=1, trials=specs("k"), outcomes=ended("k"))
    return facts(coarse(outcomes=ended(TRIALS)), fine, last, together, compacted=compacted)
