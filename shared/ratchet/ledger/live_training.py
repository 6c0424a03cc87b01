"""The live status of training, for views on every machine: its worker keeps it on its claim, with the newest previews.

It is only shown; nothing is decided by it. The full status is the file that training writes on its own machine.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from ratchet.evaluation.preview import JOURNAL, Preview, read_previews
from ratchet.ledger.tables import ClaimRow
from ratchet.settings import Settings

SYSTEM = "training"
STATUS_FILE = "training_status.json"
FIELDS = ("state", "step", "loss", "tokens_per_s", "examples_done")
PREVIEWS = 10
"""On a claim, which is written every other second; the journal on the machine that trains has more."""


@dataclass(frozen=True)
class LiveTraining:
    """``is_claimed``: a worker trains just now. ``status`` has those of ``FIELDS`` that are known."""

    is_claimed: bool = False
    status: dict[str, Any] = field(default_factory=dict)
    previews: tuple[Preview, ...] = ()


def status_for_claim(settings: Settings) -> dict[str, Any]:
    """What training has written on this machine, as small JSON for its claim; empty where it has not written yet."""
    try:
        found: Any = json.loads((settings.status_folder / STATUS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = {}
    previews = read_previews(settings.status_folder / JOURNAL, PREVIEWS)
    status = {name: found[name] for name in FIELDS if name in found} if isinstance(found, dict) else {}
    return {**status, "previews": [preview.model_dump() for preview in previews]}


def live_training(session: Session, settings: Settings, previews: int = PREVIEWS) -> LiveTraining:
    """The status on the claim, and so many of the newest previews: the claim's, or this machine's if they are newer."""
    claim = session.scalar(select(ClaimRow).where(ClaimRow.system == SYSTEM, ClaimRow.owner.is_not(None)).limit(1))
    status = claim.status if claim is not None else {}
    claimed = _previews(status.get("previews", ()))
    own = tuple(read_previews(settings.status_folder / JOURNAL, previews))
    newest = own if own and (not claimed or own[-1].at >= claimed[-1].at) else claimed[-previews:]
    return LiveTraining(claim is not None, {name: status.get(name) for name in FIELDS}, newest)


def _previews(values: Any) -> tuple[Preview, ...]:
    """None where another version of Ratchet wrote them differently: they are only shown."""
    try:
        return tuple(Preview.model_validate(value) for value in values)
    except (TypeError, ValidationError):
        return ()
