"""What would have to change for a checkpoint to be deployed: each case, with the numbers that its rows hold."""

from __future__ import annotations

from typing import Any

import pytest
from ratchet.ledger import Ledger
from ratchet.ledger.tables import (
    BlockRow,
    ChallengeRow,
    CheckpointRow,
    DeadLetterRow,
    DeploymentRow,
    RegressionRow,
    ServingRow,
    SuiteRow,
    VerdictRow,
)
from ratchet.systems import registry
from ratchet.views.missing_evidence import gains_needed
from ratchet.views.next_step import NextStep, next_step

INTERVAL = {"low": -0.2, "high": -0.02, "confidence": 0.95}
TARGET = {"task": None, "metric": "accuracy", "n": 900, "gains": 30, "losses": 20, "effect": 1 / 90}
TARGET |= {"p": 0.1, "alpha": 0.03, "proved": False, "before": None, "after": None}


@pytest.fixture
def three_checkpoints(empty_ledger: Ledger) -> Ledger:
    """#0 was live, #1 is; #2 waits."""
    with empty_ledger.write() as tx:
        for i in range(3):
            tx.session.add(checkpoint(i))
            tx.session.flush()
        served = {"previous_id": "c0000-000000", "actual_id": "c0001-000001", "actual_at": 1.0, "since_at": 1.0}
        tx.session.add(ServingRow(name="main", desired_id="c0001-000001", **served))
        change = {"actor": "gate", "reason": "proved better", "numbers": {}, "token": 1, "created_at": 1.0}
        ids = {"checkpoint_id": "c0001-000001", "previous_id": "c0000-000000"}
        tx.session.add(DeploymentRow(action="deploy", **ids, **change))
    return empty_ledger


def checkpoint(i: int) -> CheckpointRow:
    return CheckpointRow(
        id=f"c{i:04d}-{i:06d}",
        ordinal=i,
        parent_id=f"c{i - 1:04d}-{i - 1:06d}" if i else None,
        step=10 * i,
        tokens=100 * i,
        weights=f"{i:064d}",
        artifact=f"{i:064d}",
        size_bytes=1,
        created_at=float(i),
    )


def step(ledger: Ledger, i: int, *rows: Any, **changes: Any) -> NextStep:
    """After these rows were added, and the checkpoint or what is served was changed."""
    with ledger.write() as tx:
        tx.session.add_all(rows)
        row, served = tx.session.get_one(CheckpointRow, f"c{i:04d}-{i:06d}"), tx.session.get_one(ServingRow, "main")
        for name, value in changes.items():
            setattr(row if hasattr(row, name) else served, name, value)
    with ledger.read() as session:
        return next_step(session, session.get_one(CheckpointRow, f"c{i:04d}-{i:06d}"))


def verdict(
    system: str, outcome: str, reason: str = "", numbers: dict[str, Any] | None = None, i: int = 2
) -> VerdictRow:
    about = {"system": system, "subject_kind": "checkpoint", "subject_id": f"c{i:04d}-{i:06d}"}
    return VerdictRow(
        **about, outcome=outcome, reason=reason, numbers=numbers or {}, worker="w", created_at=2.0, took_s=1.0
    )


def judged() -> list[VerdictRow]:
    return [verdict(name, "cleared") for name in registry.systems() if registry.systems()[name].per_checkpoint][:-1]


def test_what_is_live_stays(three_checkpoints: Ledger) -> None:
    assert step(three_checkpoints, 1).kind == "live"
    unproved = step(three_checkpoints, 1, proved=False)
    assert "unproved" in unproved.needs[0]


def test_what_goes_live_is_loaded(three_checkpoints: Ledger) -> None:
    assert step(three_checkpoints, 1, actual_id=None).kind == "going live"
    assert "Its files are damaged." in step(three_checkpoints, 1, fallback_reason="its files are damaged").needs


def test_files_decide_first(three_checkpoints: Ledger) -> None:
    broken = step(three_checkpoints, 2, state="broken", reason="the loss is no number")
    assert (broken.kind, broken.needs[0]) == ("broken", "The loss is no number.")
    assert step(three_checkpoints, 2, state="deleted").kind == "deleted"


def test_a_block_has_to_be_removed(three_checkpoints: Ledger) -> None:
    block = BlockRow(weights=f"{2:064d}", checkpoint_id="c0002-000002", reason="it repeats", created_at=3.0)
    blocked = step(three_checkpoints, 2, verdict("deployment", "rolled back", "it repeats"), block)
    assert blocked.kind == "blocked"
    assert "it repeats" in blocked.needs[0]
    assert "unblock" in blocked.needs[1]


def test_a_rollback_without_a_block_can_be_deployed_again(three_checkpoints: Ledger) -> None:
    assert step(three_checkpoints, 2, verdict("deployment", "rolled back", "it repeats")).kind == "rolled back"


def test_the_base_model_is_never_a_challenger(three_checkpoints: Ledger) -> None:
    assert step(three_checkpoints, 0).kind == "base"


def test_what_was_live_says_what_took_its_place(three_checkpoints: Ledger) -> None:
    change = {"actor": "gate", "reason": "proved better", "numbers": {}, "token": 2, "created_at": 5.0}
    newer = DeploymentRow(action="deploy", checkpoint_id="c0002-000002", previous_id="c0001-000001", **change)
    gone = step(three_checkpoints, 1, verdict("deployment", "deployed", i=1), newer, desired_id="c0002-000002")
    assert gone.kind == "replaced"
    assert gone.needs[0] == "c0002-000002 took its place, proved better."
    assert step(three_checkpoints, 1, previous_id="c0001-000001").needs[1] == "A rollback brings it back."


def test_it_waits_for_judges_by_name(three_checkpoints: Ledger) -> None:
    waits = step(three_checkpoints, 2)
    assert waits.kind == "waits"
    assert waits.needs[0].startswith("It waits for testing, ")
    assert "regression" in waits.needs[0]


def test_it_waits_for_its_turn_when_all_have_judged(three_checkpoints: Ledger) -> None:
    assert "All judges have given their verdicts." in step(three_checkpoints, 2, *judged()).needs


def test_a_freeze_is_what_holds_it(three_checkpoints: Ledger) -> None:
    frozen = step(three_checkpoints, 2, frozen_reason="the card is being replaced")
    assert frozen.kind == "frozen"
    assert "the card is being replaced." in frozen.needs[0]


def test_an_open_challenge_is_named(three_checkpoints: Ledger) -> None:
    suite = SuiteRow(id="s" * 32, pool="confirm", ordinal=0, artifact="a", items=9, created_at=1.0, retired_at=None)
    pair = {"champion_id": "c0001-000001", "challenger_id": "c0002-000002", "suite_id": "s" * 32}
    with three_checkpoints.write() as tx:
        tx.session.add(suite)
    testing = step(three_checkpoints, 2, *judged(), ChallengeRow(**pair, k=3, outcome=None, numbers={}, created_at=4.0))
    assert testing.kind == "challenging"
    assert "challenge 3 of c0001-000001" in testing.needs[0]


@pytest.mark.parametrize("i", [2, 1])
def test_a_dead_letter_of_it_or_of_the_champion_needs_somebody(three_checkpoints: Ledger, i: int) -> None:
    letter = DeadLetterRow(
        system="testing",
        subject_kind="checkpoint",
        subject_id=f"c{i:04d}-{i:06d}",
        error="out of memory",
        traceback="",
        failures=3,
        kills=0,
        created_at=3.0,
        resolved_at=None,
        resolution=None,
    )
    assert step(three_checkpoints, 2, *judged(), letter).kind == "gave up"


def test_what_was_superseded_names_the_newer_one(three_checkpoints: Ledger) -> None:
    gone = step(
        three_checkpoints, 2, verdict("deployment", "superseded", "c0003-000003 is newer and ranks at least as high")
    )
    assert gone.kind == "superseded"
    assert gone.needs[0] == "c0003-000003 is newer and ranks at least as high."
    assert "by hand" in gone.needs[1]


def test_it_can_be_superseded_before_it_is_tested(three_checkpoints: Ledger) -> None:
    assert step(three_checkpoints, 2, verdict("testing", "superseded", "c0003-000003 is newer")).kind == "superseded"


def test_a_regression_is_told_with_its_size(three_checkpoints: Ledger) -> None:
    drop = {"baseline": "c0001-000001", "family": "chain_sum", "level": 2, "n": 60, "gains": 1, "losses": 9}
    drop |= {"effect": -8 / 60, "interval": INTERVAL, "p": 0.01, "p_holm": 0.02, "drop_at_least": 0.03}
    numbers = {"drops": [drop | {"severity": "critical"}, drop | {"level": 3, "severity": "none"}]}
    row = RegressionRow(
        checkpoint_id="c0002-000002", baseline_id=None, severity="critical", numbers=numbers, created_at=2.0
    )
    before = step(three_checkpoints, 2, row)
    after = step(three_checkpoints, 2, verdict("deployment", "refused", "the regression monitor reports critical"))
    assert before.kind == after.kind == "regressed"
    assert before.needs[0].startswith(
        "chain_sum level 2 fell by 13.3 points against c0001-000001 (1 gained, 9 lost of 60"
    )
    assert "by 3.0 at least" in before.needs[0]


def test_over_budget_is_told_as_it_was_decided(three_checkpoints: Ledger) -> None:
    refused = step(
        three_checkpoints,
        2,
        verdict("deployment", "refused", "it is over budget: 900 bytes are more than the 800 allowed"),
    )
    assert refused.kind == "refused"
    assert "over budget" in refused.needs[0]


def test_the_gate_says_which_gain_was_needed(three_checkpoints: Ledger) -> None:
    evidence = {"targets": [TARGET], "families": [], "tasks": [], "general": None, "levels": [], "smoke_passed": True}
    refused = step(three_checkpoints, 2, verdict("deployment", "refused", "Not proved better", {"evidence": evidence}))
    assert refused.kind == "refused"
    needed = gains_needed(50, 0.03)
    assert f"{needed} gained against {50 - needed} lost would do" in refused.needs[0]
    assert "would do on about 1,592 items" in refused.needs[0]
