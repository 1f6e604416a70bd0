"""What the page works out of the results once, and shows in several places."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.diagnosis.collect import StageFinding
from orchestrator.planning.narrowing.trust import Agreement
from orchestrator.report.diagnosis import findings_of
from orchestrator.report.remembered import remembered_importances
from orchestrator.results.load import Results
from orchestrator.results.more_data import MoreData, more_data
from orchestrator.results.trust import agreements


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What is measured over whole stages.

    Attributes:
        shares: stage to parameter to importance.
        agreements: how far rankings carry over between phases that follow each other.
        forecast: how much more data would help; None where there is nothing to say.
        findings: by stage, what its trials' findings say together.
    """

    shares: Mapping[str, Mapping[str, float]]
    agreements: tuple[Agreement, ...]
    forecast: MoreData | None
    findings: Mapping[str, tuple[StageFinding, ...]]


def measure(results: Results) -> Measured:
    """Work out what is shown of stages as a whole."""
    return Measured(
        shares=remembered_importances(results),
        agreements=agreements(results),
        forecast=more_data(results),
        findings={stage: findings_of(results, stage) for stage in results.stages},
    )
