"""What of the champion's a challenge protects, and when the confirm suite is rotated."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from deployer.challenge import protected_levels, rotate_if_used_up
from ratchet.data.example import Example
from ratchet.ledger.suites import current
from ratchet.ledger.tables import SuiteRow
from ratchet.systems import Subject, Work, claims
from ratchet.user_tasks.add import Choice

from tests.support.bus import InlineChildren
from tests.support.home import Home, small_home
from tests.support.user_tasks import add_rows


def work_on(home: Home, checkpoint: str) -> Work:
    subject = Subject("checkpoint", checkpoint)
    with home.ledger.write() as tx:
        claim = claims.take(tx, "deployment", subject, "deployment@test+0", 60.0)
    assert claim is not None
    folder = home.settings.work_folder / "test"
    return Work(
        subject, claim, None, home.settings, home.ledger, home.artifacts, InlineChildren(), folder, folder,
        threading.Event(), 90.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("gate", "protected"),
    [
        ({}, {"chain_sum": {1}}),
        ({"mastery": 0.4}, {"chain_sum": {1, 2}}),
    ],
    ids=["plain", "mastery"],
)
def test_mastery_for_protection_follows_the_setting(
    tmp_path: Path, gate: dict[str, float], protected: dict[str, set[int]]
) -> None:
    """The champion knows level 1 of the sums, and half of level 2."""
    with small_home(tmp_path / "told", gate=gate) as home:
        sums = [item for item in home.suite_items("eval") if item.family == "chain_sum"]
        half = {item.id for item in [item for item in sums if item.level == 2][::2]}
        known = {item.id for item in sums if item.level == 1} | half
        home.add_record(home.base_id(), "eval", lambda item: item.id in known)
        assert protected_levels(work_on(home, home.add_checkpoint()), home.base_id()) == protected


@pytest.mark.parametrize(("most", "is_kept"), [(3, True), (2, False)])
def test_a_confirm_suite_is_rotated_after_its_challenges(tmp_path: Path, most: int, is_kept: bool) -> None:
    with small_home(tmp_path / "told") as home:
        with home.ledger.write() as tx:
            tx.session.get_one(SuiteRow, current(tx.session, "confirm").id).uses = 2
        rotate_if_used_up(work_on(home, home.add_checkpoint()), most)
        with home.ledger.read() as session:
            first = session.query(SuiteRow).where(SuiteRow.pool == "confirm").order_by(SuiteRow.ordinal).first()
            assert first is not None
            assert (current(session, "confirm").id == first.id) == is_kept


def test_user_rows_stay_in_the_rotated_suite_without_their_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(Example.ask(f"question {n}", f"answer {n}").to_line() + "\n" for n in range(200)))
    with small_home(tmp_path / "told") as home:
        add_rows(home, file, Choice(metric="accuracy"))
        before = home.suite_items("confirm")
        file.unlink()
        with home.ledger.write() as tx:
            tx.session.get_one(SuiteRow, current(tx.session, "confirm").id).uses = 1
        rotate_if_used_up(work_on(home, home.add_checkpoint()), 1)
        after = home.suite_items("confirm")
        rows = {item.id for item in before if str(item.question).startswith("question ")}
        assert rows == {item.id for item in after if str(item.question).startswith("question ")} != set()
        assert {item.id for item in before} != {item.id for item in after}
