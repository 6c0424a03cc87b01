"""What the gate keeps of a decision: its numbers in the ledger, and a verdict for pipelines as a file in the home."""

from __future__ import annotations

from typing import Any

from ratchet.disk import disk_errors
from ratchet.failpoint import failpoint
from ratchet.gate.decision import Promote, Refuse
from ratchet.gate.verdict import give_verdict
from ratchet.gate.verdict_text import write_verdict
from ratchet.gate.verdict_values import Verdict
from ratchet.ledger import Transaction
from ratchet.ledger.noise_floors import noise_of
from ratchet.ledger.suites import current, evaluation
from ratchet.ledger.tables import ChallengeRow
from ratchet.systems import Work


def close_challenge(work: Work, challenge: ChallengeRow, decision: Promote | Refuse) -> dict[str, Any]:
    """Write the decision down and close the challenge with it; returns its numbers.

    A full disk is a TransientError, and leaves the challenge open.
    """
    verdict = _verdict(work, decision)
    folder = work.settings.verdict_folder / challenge.challenger_id
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_verdict(verdict, folder)
    numbers = decision.model_dump(mode="json")

    def effects(tx: Transaction) -> None:
        row = tx.session.get_one(ChallengeRow, challenge.id)
        row.outcome, row.numbers = decision.decision, {**numbers, "verdict": verdict.model_dump(mode="json")}

    work.commit(effects)
    failpoint("after-decision")
    return numbers


def _verdict(work: Work, decision: Promote | Refuse) -> Verdict:
    """The decision in the form of `ratchet verdict`, with the noise floor of the challenger's eval record."""
    challenger = decision.evidence.challenger
    with work.read() as session:
        row = evaluation(session, challenger, current(session, "eval").id)
        noise = noise_of(session, row.suite_id, row.key) if row is not None else None
    return give_verdict(decision.evidence, work.settings.gate, noise=noise)
