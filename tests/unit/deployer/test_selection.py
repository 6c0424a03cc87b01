from __future__ import annotations

from dataclasses import replace

from deployer.selection import Challenge, Contender, Ruling, Settle, Wait, rule
from hypothesis import given
from hypothesis import strategies as st

CHAMPION = 10
READY = Contender(id="c11", ordinal=11, score=0.5, severity="none", calibrated=True, blocked=None)


def judge(*contenders: Contender, held: str | None = None) -> dict[str, Ruling]:
    return rule(contenders, f"c{CHAMPION}", CHAMPION, held)


def contender(ordinal: int, **known: object) -> Contender:
    return replace(READY, id=f"c{ordinal}", ordinal=ordinal, **known)  # type: ignore[arg-type]


CONTENDERS = st.lists(
    st.builds(
        lambda ordinal, **known: contender(ordinal, **known),
        st.integers(1, 30),
        score=st.none() | st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]),
        severity=st.sampled_from([None, "none", "warning", "critical"]),
        calibrated=st.booleans(),
        blocked=st.sampled_from([None, "bad"]),
        is_kept=st.booleans(),
    ),
    unique_by=lambda c: c.ordinal,
    max_size=12,
)


def is_ready(c: Contender) -> bool:
    known = c.score is not None and c.severity == "none" and c.calibrated
    return known and c.is_kept and c.blocked is None and c.ordinal > CHAMPION


def score(c: Contender) -> float:
    assert c.score is not None
    return c.score


@given(CONTENDERS)
def test_the_best_ready_candidate_challenges(field: list[Contender]) -> None:
    rulings = judge(*field)
    assert rulings.keys() == {c.id for c in field}
    challenging = [c for c in field if isinstance(rulings[c.id], Challenge)]
    ready = [c for c in field if is_ready(c)]
    if not ready:
        assert challenging == []
        return
    (chosen,) = challenging
    assert chosen == max(ready, key=lambda c: (score(c), c.ordinal))


@given(CONTENDERS)
def test_nothing_that_is_not_newer_than_the_champion_challenges_or_waits(field: list[Contender]) -> None:
    rulings = judge(*field)
    assert all(isinstance(rulings[c.id], Settle) for c in field if c.ordinal <= CHAMPION)


@given(CONTENDERS)
def test_while_frozen_no_challenge_opens_and_no_verdict_is_lost(field: list[Contender]) -> None:
    free, frozen = judge(*field), judge(*field, held="holidays")
    assert not any(isinstance(ruling, Challenge) for ruling in frozen.values())
    assert {id: r for id, r in free.items() if isinstance(r, Settle)} == {
        id: r for id, r in frozen.items() if isinstance(r, Settle)
    }


@given(CONTENDERS, st.randoms())
def test_the_order_of_the_checkpoints_does_not_matter(field: list[Contender], random: object) -> None:
    shuffled = list(field)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert judge(*field) == judge(*shuffled)


@given(CONTENDERS)
def test_the_newest_ready_one_is_never_settled(field: list[Contender]) -> None:
    ready = [c for c in field if is_ready(c)]
    if ready:
        newest = max(ready, key=lambda c: c.ordinal)
        assert not isinstance(judge(*field)[newest.id], Settle)


def test_older_checkpoints_than_the_candidate_are_superseded_and_newer_ones_wait() -> None:
    rulings = judge(contender(11, score=0.4), contender(12, score=0.9), contender(13, score=0.8))
    assert rulings["c11"] == Settle("superseded", "c12 is newer and ranks at least as high")
    assert rulings["c12"] == Challenge()
    assert rulings["c13"] == Wait("the decision on c12, which ranks higher")


def test_an_open_challenge_is_decided_first_however_many_better_and_newer_ones_have_come() -> None:
    rulings = judge(contender(11, score=0.4), contender(12, score=0.4, is_challenging=True), contender(13, score=0.9))
    assert rulings["c12"] == Challenge()
    assert rulings["c11"] == rulings["c13"] == Wait("the decision on c12, whose challenge is open")


def test_an_open_challenge_of_a_checkpoint_that_may_not_be_deployed_holds_up_nobody() -> None:
    rulings = judge(contender(11, severity="warning", is_challenging=True), contender(12))
    assert isinstance(rulings["c11"], Settle)
    assert rulings["c12"] == Challenge()


def test_of_equals_the_newer_one_challenges() -> None:
    rulings = judge(contender(11), contender(12))
    assert rulings["c12"] == Challenge()
    assert isinstance(rulings["c11"], Settle)


def test_missing_verdicts_are_named() -> None:
    assert judge(contender(11, score=None, calibrated=False)) == {"c11": Wait("comparison and calibration")}
    assert judge(contender(11, severity=None)) == {"c11": Wait("regression")}
    assert judge(contender(11, judges=("regression", "taste"), severity=None)) == {"c11": Wait("regression and taste")}


def test_a_checkpoint_that_waits_for_judges_does_not_block_another() -> None:
    rulings = judge(contender(11, score=0.2), contender(12, score=None))
    assert rulings["c11"] == Challenge()


def test_a_regressed_checkpoint_is_refused_before_its_other_verdicts() -> None:
    ruling = judge(contender(11, severity="warning", score=None))["c11"]
    assert ruling == Settle("refused", "the regression monitor reports warning")


def test_blocked_weights_are_settled_and_the_way_out_is_named() -> None:
    ruling = judge(contender(11, blocked="the canary failed"))["c11"]
    assert isinstance(ruling, Settle)
    assert ruling.outcome == "blocked"
    assert "the canary failed" in ruling.reason
    assert "ratchet deploy unblock" in ruling.reason


def test_one_whose_files_retention_has_deleted_is_no_candidate() -> None:
    rulings = judge(contender(11, score=1.0, is_kept=False), contender(12, score=0.1))
    assert rulings["c11"] == Settle("superseded", "newer checkpoints have taken its place on disk")
    assert rulings["c12"] == Challenge()


def test_a_freeze_is_shown_with_its_reason_and_way_out() -> None:
    assert judge(READY, held="exam week") == {"c11": Wait("exam week")}


def test_a_checkpoint_that_testing_gave_up_waits_without_blocking_others() -> None:
    stuck = contender(12, score=0.9, given_up="confirm")
    assert judge(READY, stuck) == {
        "c11": Challenge(),
        "c12": Wait("`ratchet dead retry`: testing gave up on its confirm record"),
    }


def test_a_checkpoint_over_budget_is_refused_without_blocking_others() -> None:
    rulings = judge(contender(12, score=0.9, over_budget="30 bytes are more than the 20 allowed"), contender(11))
    assert rulings["c12"] == Settle("refused", "it is over budget: 30 bytes are more than the 20 allowed")
    assert isinstance(rulings["c11"], Challenge)
