"""D7 and D10: simple models of the same data, to beat, and to see whether labels belong to their inputs."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from orchestrator.checks.fitting import quiet
from orchestrator.checks.quick import Quick, quick_models
from orchestrator.checks.result import CheckResult, failed, passed, skipped
from orchestrator.checks.seeding import seeded
from orchestrator.checks.subject import Subject
from orchestrator.checks.yardstick import CLASSES

# Fewer measured samples than this say nothing about chance.
LEAST = 40
# From fewer samples to learn from, in all or of a class, a hard task is not told from a hopeless one.
LEARNED, LEARNED_OF_A_CLASS = 200, 10
# Standard deviations above chance, below which nothing was learned.
CHANCE = 2.0
# Times that simple models, and the own network, learn from shuffled labels to see how wide chance is.
SHUFFLED, NETWORKS = 8, 3
# What simple models don't find and a network does, it finds clearly: an exclusive or, an order of tokens.
OF_A_NETWORK = 5.0
# Own networks are trained this long before labels are called shuffled.
UPDATES, BATCH, RATE = 150, 64, 3e-3
# So many are clear without a look at what shuffled labels give.
CLEAR = 8.0


def baselines(subject: Subject) -> CheckResult:
    """D7: the majority class and a linear model, which a network is to beat, and what people reach."""
    quick, people = subject.quick, subject.human_accuracy
    if quick is None:
        return skipped("D7", "no simple model for such data: it wants one class or value for each sample")
    scores = {name: quick.score(getattr(quick, name)) for name in ("majority", "linear", "forest")}
    kind = "accuracy" if quick.classes else "R²"
    part = "validation" if quick.validation else "held-out"
    first = "majority class" if quick.classes else "mean"
    saw = f"{kind} to beat: {first} {scores['majority']:.3f}, linear {scores['linear']:.3f}"
    saw += f", forest {scores['forest']:.3f} ({quick.fitted} samples, {part} part)"
    if people is not None and quick.classes:
        scores["people"] = people
        saw += f"; people reach {people:.3f}"
        if max(scores["linear"], scores["forest"]) > people:
            saw += ": simple models do better than people, so see that no input gives the answer away"
    return passed("D7", saw, scores)


def labels_belong(subject: Subject) -> CheckResult:
    """D10: something can be learned: simple models, or the job's own, beat chance on other samples."""
    quick = subject.quick
    if quick is None:
        return skipped("D10", "no simple model for such data: it wants one class or value for each sample")
    if quick.validation and len(quick.truth) < LEAST:
        quick = quick_models(subject.setup, own_validation=False) or quick
    if len(quick.truth) < LEAST or len(np.unique(quick.truth)) < 2:
        return skipped("D10", f"{len(quick.truth)} samples to measure on are too few to tell from chance")
    details = _above(quick)
    if (most := max(details.values())) >= CLEAR:
        return _belong(details)
    # Predictions for alike samples are alike, right or wrong together: chance is wider than for single ones.
    chance = [max(_above(each).values()) for each in _shuffled(subject, quick)]
    details["chance"] = bar = max(CHANCE, float(np.mean(chance) + 2 * np.std(chance)) if chance else 0.0)
    if most >= bar:
        return _belong(details)
    if quick.validation and (inside := quick_models(subject.setup, own_validation=False)) is not None:
        held_out = max(_above(inside).values())
        if held_out * np.sqrt(len(quick.truth) / len(inside.truth)) > CLEAR:
            return failed(
                "D10",
                f"held-out training samples are {held_out:.0f} standard deviations above chance, validation "
                f"samples {max(details.values()):.1f}",
                "validation labels in another order than their inputs, or validation inputs transformed "
                "otherwise",
                "Compare inputs and labels of the validation part by eye (D6 shows training samples)",
                details,
            )
    classes = len(np.unique(quick.truth)) if quick.classes else 1
    if quick.fitted < max(LEARNED, LEARNED_OF_A_CLASS * classes):
        return skipped("D10", f"{quick.fitted} samples to learn from are too few for that", details)
    others = [abs(_own_network(subject, seed)) for seed in range(1, 1 + NETWORKS)]
    details["chance"] = bar = max(OF_A_NETWORK, 3 * float(np.sqrt(np.mean(np.square(others)))))
    details["network"] = _own_network(subject, None)
    if details["network"] >= bar:
        return _belong(details)
    shown = ", ".join(f"{name} {value:.1f}" for name, value in details.items())
    return failed(
        "D10",
        f"no model is better than chance on {len(quick.truth)} other samples (standard deviations above "
        f"it: {shown})",
        "labels shuffled against their inputs: sorted, filtered or shuffled one without the other; or "
        "nothing to learn",
        "Look at inputs with their labels (D6), and keep both in one order",
        details,
    )


def _belong(details: dict[str, float]) -> CheckResult:
    best = max((name for name in details if name != "chance"), key=lambda name: details[name])
    saw = f"the {best} model is {details[best]:.0f} standard deviations above chance"
    if "chance" in details:
        saw += f" (at least {details['chance']:.0f} are wanted, by what shuffled labels give)"
    return passed("D10", saw, details)


def _shuffled(subject: Subject, quick: Quick) -> list[Quick]:
    """Return what simple models make of the same data with the targets to learn from shuffled."""
    found = (
        quick_models(subject.setup, own_validation=quick.validation, shuffled=seed)
        for seed in range(SHUFFLED)
    )
    return [each for each in found if each is not None]


def _above(quick: Quick) -> dict[str, float]:
    return {
        "linear": above_chance(quick.linear, quick.truth, quick.classes),
        "forest": above_chance(quick.forest, quick.truth, quick.classes),
    }


def above_chance(predicted: NDArray[Any], truth: NDArray[Any], classes: bool) -> float:
    """Return by how many standard deviations predictions agree better than with the same labels shuffled.

    Agreement of classes is how many are equal, of values their correlation. A constant prediction agrees
    with every order alike: 0.

    Args:
        predicted: (m,).
        truth: (m,).
        classes: whether they are classes.
    """
    count = len(truth)
    if not classes:
        if predicted.std() == 0 or truth.std() == 0:
            return 0.0
        return float(np.corrcoef(predicted, truth)[0, 1] * np.sqrt(count - 1))
    names = np.unique(np.concatenate([predicted, truth]))
    one, other = (np.array([(each == name).sum() for name in names], float) for each in (predicted, truth))
    # Mean and variance of the matches over all orders of the labels.
    mean = float((one * other).sum() / count)
    both = float((one * other).sum())
    pairs = float((one * (one - 1) * other * (other - 1)).sum())
    cross = both**2 - float((one**2 * other**2).sum())
    second = mean + (pairs + cross) / (count * (count - 1))
    deviation = np.sqrt(max(second - mean**2, 0.0))
    return float(((predicted == truth).sum() - mean) / deviation) if deviation > 1e-9 else 0.0


def _own_network(subject: Subject, shuffled: int | None) -> float:
    """Train the job's own network for a while; return how far above chance it is on other samples.

    Args:
        subject: whose network and data.
        shuffled: shuffle the targets to learn from, from this seed.
    """
    setup = subject.setup
    if subject.scale.kind not in CLASSES and not setup.targets.is_floating_point():
        return 0.0
    half = len(setup.inputs) // 2
    measured = setup.validation or (setup.inputs[half:], setup.targets[half:])
    count = len(setup.inputs) if setup.validation else half
    targets = setup.targets[:count]
    if shuffled is not None:
        order = torch.randperm(count, generator=torch.Generator().manual_seed(shuffled))
        targets = targets[order.to(targets.device)]
    with seeded(setup.inputs.device):
        model = quiet(subject.model())
        optimizer = torch.optim.Adam([each for each in model.parameters() if each.requires_grad], lr=RATE)
        for _ in range(UPDATES):
            rows = torch.randint(count, (min(BATCH, count),)).to(setup.inputs.device)
            optimizer.zero_grad()
            setup.loss(model(setup.inputs[rows]), targets[rows]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        with torch.no_grad():
            outputs = copy.deepcopy(model).eval()(measured[0][:1000]).float().cpu()
    truth = measured[1][:1000].cpu().numpy().reshape(-1)
    if subject.scale.kind in CLASSES:
        return above_chance(outputs.argmax(1).numpy(), truth, True)
    return above_chance(
        outputs.numpy().reshape(len(truth), -1)[:, 0].astype(float), truth.astype(float), False
    )
