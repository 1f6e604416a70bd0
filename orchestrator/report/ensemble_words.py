"""What the ensemble came to, in sentences: from `ensemble.json`, for the page and the terminal.

Files of version 1 have fewer parts; of a part that is absent, or no number, nothing is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.report.ensemble_tables import gain, short
from orchestrator.results.ensemble_parts import (
    KINDS,
    figure,
    mappings,
    method_name,
    pair,
    part,
    score_name,
)

TWO_POINTS = 0.02
NEARLY_ALL = 0.05  # of errors: two points would be two fifths of them


def choice_sentence(found: Mapping[str, Any]) -> str:
    """Say how many were chosen, of how many, by what and on which data."""
    members, candidates = len(mappings(found.get("members"))), figure(found.get("candidates"))
    of = "" if candidates is None else f" of {_count(int(candidates), 'candidate')}"
    by = f" by {method_name(found)}" if method_name(found) else ""
    samples = figure(found.get("validation_samples"))
    on = "" if samples is None else f" ({int(samples):,} samples)"
    return f"{_count(members, 'member')}{of}, chosen on validation data{on}{by}."


def method_sentence(found: Mapping[str, Any]) -> str:
    """Say why members are combined as they are; empty where that was asked for or is not known."""
    nested = part(found, "nested")
    why, folds = str(nested.get("why") or "").strip(), figure(nested.get("folds"))
    if not why:
        return ""
    by = f"Nested validation with {folds:.0f} folds: " if folds else ""
    return f"{by}{why}" + ("" if why.endswith(".") else ".")


def reading_sentence(found: Mapping[str, Any]) -> str:
    """Say how often the labels of the test data were read, and what follows from more than once."""
    samples, looks = figure(found.get("test_samples")), figure(found.get("test_looks"))
    data = "the held-out test data" + ("" if samples is None else f" ({int(samples):,} samples)")
    if looks is None or looks <= 1:
        return f"The labels of {data} were read once, at the end."
    return (
        f"The labels of {data} were read {looks:.0f} times: whoever chooses after a look at them gets "
        "figures that are too good. Only the first reading is clean."
    )


def gain_sentences(found: Mapping[str, Any]) -> list[str]:
    """Say what the ensemble, the soup and the student are worth on test data, with 95% intervals."""
    gains = part(found, "gains")
    said = []
    over = [
        f"{gain(found, part(gains, key))} over the {KINDS[other]}"
        for key, other in (("over_best_single", "best_single"), ("over_average_member", "average_member"))
        if figure(part(gains, key).get("value")) is not None
    ]
    if over:
        said.append(f"On test data the ensemble is {' and '.join(over)}.")
    for key, start, end in (
        ("soup_over_best_single", "The soup is", "over the best single model."),
        ("student_over_labels", "The student is", "over the same network trained on labels."),
        ("student_below_ensemble", "The ensemble is", "over the student."),
    ):
        if figure(part(gains, key).get("value")) is not None:
            said.append(f"{start} {gain(found, part(gains, key))} {end}")
    if said and found.get("score") != "accuracy":
        said.append(f"Gains are in {score_name(found)}, and + is better.")
    return said


def room_sentence(found: Mapping[str, Any]) -> str:
    """Say whether an ensemble gave two points of accuracy, and whether there was room for them at all."""
    accuracy = part(found, "test") if found.get("score") == "accuracy" else None
    accuracy = part(part(found, "other_scores"), "accuracy") if accuracy is None else accuracy
    single, together = figure(accuracy.get("best_single")), figure(accuracy.get("ensemble"))
    if single is None or together is None:
        return ""
    errors, gained = 1 - single, together - single
    made = f"the best single model makes {errors:.1%} errors"
    if errors < TWO_POINTS:
        return f"Two points of accuracy were not possible: {made}."
    if gained >= TWO_POINTS:
        return f"Two points of accuracy are reached: {made}, {gained / errors:.0%} of which are gone."
    if errors < NEARLY_ALL:
        return f"Two points of accuracy were hardly possible: {made}."
    return f"Two points of accuracy are not reached, although there was room: {made}."


def soup_sentence(found: Mapping[str, Any]) -> str:
    """Say what was found on the way between the weights of runs."""
    soup = part(found, "soup")
    note, barrier = str(soup.get("note") or "").strip(), figure(soup.get("barrier"))
    if note:
        return f"Soup: {note}" + ("" if note.endswith(".") else ".")
    return "" if barrier is None else f"The loss rises by at most {barrier:.3g} between the averaged weights."


def student_sentence(found: Mapping[str, Any]) -> str:
    """Say why there is no student, where there was to be one."""
    why = str(found.get("student_missing") or "").strip()
    return f"No student: {why}" + ("" if why.endswith(".") else ".") if why else ""


def calibration_sentence(found: Mapping[str, Any]) -> str:
    """Say how far confidence is from accuracy, before and after the temperature."""
    parts = []
    for key in ("best_single", "ensemble"):
        one = part(part(found, "calibration"), key)
        before, after = figure(one.get("ece")), figure(one.get("ece_scaled"))
        heat = figure(part(found, "temperature").get(key))
        if before is None:
            continue
        scaled = "" if after is None else f", {after:.1%} after the temperature"
        scaled += f" of {heat:.2f}" if scaled and heat is not None else ""
        parts.append(f"{KINDS[key]} {before:.1%}{scaled}")
    if not parts:
        return ""
    return f"Mean distance of confidence from accuracy on test data (ECE): {'; '.join(parts)}."


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def summary_rows(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the few lines that the end of a run shows: what it is about, and what there is to say."""
    rows = [(KINDS[key], text) for key in KINDS if (text := _measured(found, key))]
    gains = part(found, "gains")
    over = [
        f"{gain(found, part(gains, key))} over {other}"
        for key, other in (
            ("over_best_single", "the best single model"),
            ("over_average_member", "the average member"),
            ("student_over_labels", "the same network on labels (student)"),
        )
        if figure(part(gains, key).get("value")) is not None
    ]
    if over:
        rows.append(("gain", ", ".join(over)))
    if room := room_sentence(found):
        rows.append(("room", room))
    looks = figure(found.get("test_looks"))
    if looks is not None and looks > 1:
        rows.append(("test data", f"labels read {looks:.0f} times: only the first reading is clean"))
    if why := student_sentence(found):
        rows.append(("student", why.removeprefix("No student: ")))
    skipped = len(mappings(found.get("skipped")))
    if skipped:
        rows.append(("passed over", f"{_count(skipped, 'checkpoint')}: see the report for why"))
    return rows


def _measured(found: Mapping[str, Any], key: str) -> str:
    """Return one line of figures; empty for what the end of a run leaves to the report."""
    validation, test = (figure(part(found, side).get(key)) for side in ("validation", "test"))
    if test is None or key in ("average_member", "student_labels"):
        return ""
    score = score_name(found)
    before = "" if validation is None else f"validation {score} {short(validation)}, "
    low, high = pair(part(found, "test_intervals").get(key))
    ends = "" if figure(low) is None or figure(high) is None else f" ({short(low)} to {short(high)})"
    text = f"{before}held-out test {score} {short(test)}{ends}"
    if key != "ensemble":
        return text
    members, candidates = len(mappings(found.get("members"))), figure(found.get("candidates"))
    of = "" if candidates is None else f" of {candidates:.0f}"
    by = f", {method_name(found)}" if method_name(found) else ""
    return f"{text}: {members}{of} checkpoints{by}"
