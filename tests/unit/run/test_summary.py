"""What a run says at its end."""

from __future__ import annotations

from ratchet.ledger import Ledger
from ratchet.run.summary import Summary, render, summarize

from tests.support.story import checkpoint_id


def summary(ledger: Ledger, since_s: float, done: frozenset[str] = frozenset()) -> Summary:
    now = ledger.now()
    with ledger.read() as session:
        return summarize(session, now - since_s, now, done)


def test_it_tells_what_was_learnt_deployed_and_why(ledger: Ledger) -> None:
    text = render(summary(ledger, 1000.0), "http://127.0.0.1:8100", "ratchet")
    for said in (
        "4 checkpoints trained, judged and decided in 16 min 40 s.",
        "Live is #3, right on the eval suite:\n  chain_sum  level 1 100 %, level 2 92 %",
        "deployed #1 over #0: +16.7 points",
        "deployed #3 over #1: +16.7 points",
        "Trained on 43,200 examples, 400 of them lessons from its own mistakes; 70 weak items were mined.",
        "1 dead letter: `ratchet dead` lists them.",
        "http://127.0.0.1:8100/v1",
        "`ratchet run` goes on from here",
    ):
        assert said in text


def test_what_was_done_before_the_run_is_not_its_merit(ledger: Ledger) -> None:
    before = frozenset(checkpoint_id(n) for n in (1, 2, 3))
    found = summary(ledger, 130.0, before)
    assert [d.ordinal for d in found.cycles] == [4]
    assert [change.ordinal for change in found.changes] == []
    assert found.first_deployed_s is None
    assert "(not yet)" in render(found, "http://x", "ratchet")


def test_times_to_the_first_judgement_and_deployment_are_measured_from_the_start(ledger: Ledger) -> None:
    found = summary(ledger, 300.0)
    assert found.first_judged_s is not None
    assert found.first_deployed_s is not None
    assert 50 < found.first_judged_s < found.first_deployed_s < 60
