"""The live status of training, for views on every machine. Its worker stores it on its claim, with the newest previews.

It is only displayed and never decides anything. The full status is in a file on the training machine.
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
FIELDS = ("state", "step", "loss", "tokens_per_s", "epoch", "epochs", "examples_done", "examples_total")
"""``examples_done`` of ``examples_total`` rows are counted over all epochs, unlike a batch's ``offset``."""
PREVIEWS = 10
"""Previews on a claim, which is written every two seconds; the journal on the training machine has more."""


@dataclass(frozen=True)
class LiveTraining:
    """``is_claimed``: a worker is training. ``status`` has those of ``FIELDS`` that are known."""

    is_claimed: bool = False
    status: dict[str, Any] = field(default_factory=dict)
    previews: tuple[Preview, ...] = ()


def status_for_claim(settings: Settings) -> dict[str, Any]:
    """The training status of this machine as small JSON for the claim; empty before training has written one."""
    try:
        found: Any = json.loads((settings.status_folder / STATUS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = {}
    previews = read_previews(settings.status_folder / JOURNAL, PREVIEWS)
    status = {name: found[name] for name in FIELDS if name in found} if isinstance(found, dict) else {}
    return {**status, "previews": [preview.model_dump() for preview in previews]}


def live_training(session: Session, settings: Settings, previews: int = PREVIEWS) -> LiveTraining:
    """The status on the claim, and the newest ``previews`` previews: the claim's, or this machine's if they are
    newer."""
    claim = session.scalar(select(ClaimRow).where(ClaimRow.system == SYSTEM, ClaimRow.owner.is_not(None)).limit(1))
    status = claim.status if claim is not None else {}
    claimed = _previews(status.get("previews", ()))
    own = tuple(read_previews(settings.status_folder / JOURNAL, previews))
    newest = own if own and (not claimed or own[-1].at >= claimed[-1].at) else claimed[-previews:]
    return LiveTraining(claim is not None, {name: status.get(name) for name in FIELDS}, newest)


def _previews(values: Any) -> tuple[Preview, ...]:
    """The previews; empty if another version of Ratchet wrote them in another format."""
    try:
        return tuple(Preview.model_validate(value) for value in values)
    except (TypeError, ValidationError):
        return ()
