"""Submissions: intents, receipts, losses."""

from __future__ import annotations

from pathlib import Path

from orchestrator.sweep.submissions import (
    Intent,
    Loss,
    Receipt,
    Refusal,
    read_intent,
    read_submissions,
    write_abandoned,
    write_intent,
    write_loss,
    write_receipt,
)


def intent(number: int) -> Intent:
    return Intent(number=number, token=f"t-{number}", tasks=(("a", "b"), ("c",)), created=12.5, host="login")


def test_round_trip(tmp_path: Path) -> None:
    assert read_submissions(tmp_path) == []
    assert read_submissions(tmp_path / "nowhere") == []
    assert write_intent(tmp_path, intent(2))
    assert write_intent(tmp_path, intent(1))
    assert write_intent(tmp_path, intent(10))
    write_receipt(tmp_path, 1, Receipt(jobs=("7_0", "7_1"), host="login"))
    loss = Loss(reason="NODE_FAIL", blamed=("c",))
    write_loss(tmp_path, 1, 1, loss)
    write_abandoned(tmp_path, 2, Refusal("nothing of it is left"))
    one, two, ten = read_submissions(tmp_path)
    assert one.intent == intent(1) == read_intent(tmp_path, 1)
    assert (one.number, one.receipt, one.losses) == (1, Receipt(jobs=("7_0", "7_1"), host="login"), {1: loss})
    assert not one.abandoned
    assert (two.number, two.receipt, two.abandoned, two.losses) == (2, None, True, {})
    assert ten.number == 10
    assert (ten.receipt, ten.abandoned) == (None, False)


def test_a_number_is_used_once(tmp_path: Path) -> None:
    other = Intent(number=1, token="other", tasks=(("z",),), created=1.0, host="elsewhere")
    assert write_intent(tmp_path, intent(1))
    assert not write_intent(tmp_path, other)
    assert read_intent(tmp_path, 1) == intent(1)


def test_foreign_and_hidden_files_are_passed_over(tmp_path: Path) -> None:
    write_intent(tmp_path, intent(1))
    for name in (".0002.intent.json.ab12.tmp", "notes.txt", "0001.note.json", "0001.lost-.json"):
        (tmp_path / name).write_text("{")
    # A receipt without its intent is nobody's.
    write_receipt(tmp_path, 7, Receipt(jobs=("9_0",)))
    assert [submission.number for submission in read_submissions(tmp_path)] == [1]
