"""Merit: what a stage's results, single or repeated, say of each setting, without the winner's luck."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.planning.finished import Finished

# Results up to this size are drawn towards each other.
LARGEST = 1e150


@dataclass(frozen=True, kw_only=True, slots=True)
class Merit:
    """A setting and what its results say of it.

    Attributes:
        params: the setting.
        trial_id: its best trial.
        mean: its expected objective, larger better: the mean of its results, drawn towards that of all
            settings by as much as single results are known to be noise; -inf when it diverged.
        runs: how many settled results that is the mean of; 0 for a setting that was stopped early.
    """

    params: Mapping[str, Any]
    trial_id: str
    mean: float
    runs: int


def merits(finished: Sequence[Finished]) -> list[Merit]:
    """Return every setting's merit, the best first; equal ones in an order of no meaning.

    The best of many noisy results is mostly luck (the winner's curse). Where settings ran more than once,
    the noise of a single result is known, and the means are drawn towards their common one by James and
    Stein's factor (James and Stein 1961; Efron and Morris 1973, with as many variances as run counts).
    Settings that were stopped early come after all that ended, those that got further first.
    """
    groups: dict[str, list[Finished]] = {}
    for item in finished:
        groups.setdefault(item.spec.setting_id, []).append(item)
    settled = {
        name: sorted(item.objective for item in items if item.settled and math.isfinite(item.objective))
        for name, items in groups.items()
    }
    # A setting that diverges from one seed of three is no setting to bet a long run on.
    diverged = {
        name for name, items in groups.items() if any(not math.isfinite(item.objective) for item in items)
    }
    means = _shrunk({name: values for name, values in settled.items() if values and name not in diverged})
    ranked = []
    for name, items in groups.items():
        best = max(items, key=lambda item: (item.settled, item.step, item.objective, item.spec.trial_id))
        if name in diverged:
            place: tuple[int, int, float] = (0, 0, 0.0)
            merit = Merit(params=best.spec.params, trial_id=best.spec.trial_id, mean=-math.inf, runs=0)
        elif name in means:
            place = (2, 0, means[name])
            merit = Merit(
                params=best.spec.params, trial_id=best.spec.trial_id, mean=means[name],
                runs=len(settled[name]),
            )  # fmt: skip
        else:
            place = (1, best.step, best.objective)
            merit = Merit(params=best.spec.params, trial_id=best.spec.trial_id, mean=best.objective, runs=0)
        ranked.append((place, name, merit))
    ranked.sort(key=lambda entry: (tuple(-part for part in entry[0]), entry[1]))
    return [merit for _, _, merit in ranked]


def _shrunk(results: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Draw the means of settings towards the mean of those that ran as often, by what is noise in them."""
    means = {name: statistics.mean(values) for name, values in results.items()}
    spare = sum(len(values) - 1 for values in results.values())
    # The squares of larger ones overflow, and next to them the others would all be drawn to one place.
    if not spare or max(abs(value) for values in results.values() for value in values) > LARGEST:
        return means
    squares = ((value - means[name]) ** 2 for name, values in results.items() for value in values)
    noise = math.fsum(squares) / spare
    centre = math.fsum(means.values()) / len(means)
    between = max(0.0, math.fsum((mean - centre) ** 2 for mean in means.values()) / max(1, len(means) - 1))
    shrunk = {}
    for name, mean in means.items():
        own = noise / len(results[name])
        # What of the spread between settings is not noise, at least a little of it.
        signal = max(between - own, 0.05 * between)
        shrunk[name] = centre + (mean - centre) * (signal / (signal + own) if signal + own > 0 else 1.0)
    return shrunk
