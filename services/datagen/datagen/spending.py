"""What generators have used of model servers, as the ledger knows it, and the daily budget that follows."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ratchet.ledger.tables import SpendingRow
from ratchet.systems import Work
from sqlalchemy import func, select
from sqlalchemy.orm import Session

DAY_S = 86_400.0


def used_since(session: Session, at: float) -> dict[str, int]:
    """Tokens of model servers that each generator has used."""
    tokens = func.sum(SpendingRow.prompt_tokens + SpendingRow.answer_tokens)
    query = select(SpendingRow.generator, tokens).where(SpendingRow.created_at >= at).group_by(SpendingRow.generator)
    return {name: int(used) for name, used in session.execute(query)}


def recorder(work: Work, generator: str) -> Callable[[Mapping[str, int]], None]:
    """A function that records what was used, at once: even a failed attempt costs."""

    def paid(used: Mapping[str, int]) -> None:
        with work.ledger.write() as tx:  # even if another worker holds the claim by now: the tokens are used
            tx.session.add(SpendingRow(generator=generator, refill=work.subject.id, created_at=tx.now, **used))

    return paid


def cost_of(work: Work) -> dict[str, int]:
    """What the subject used of model servers, attempts that failed included."""
    with work.read() as session:
        rows = session.scalars(select(SpendingRow).where(SpendingRow.refill == work.subject.id)).all()
    if not rows:
        return {}
    names = ("requests", "prompt_tokens", "answer_tokens")
    return {name: sum(getattr(row, name) for row in rows) for name in names}
