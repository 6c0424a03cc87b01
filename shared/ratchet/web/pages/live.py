"""The page Live: what is served and why, its proof and its watch, what was before, and the operator's actions."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from ratchet.errors import PreconditionFailed
from ratchet.ledger import Transaction, operator_actions
from ratchet.ledger.deployments import serving
from ratchet.ledger.ledger import clock
from ratchet.ledger.tables import CheckpointRow
from ratchet.serving.server_home import announced_url
from ratchet.settings import Settings
from ratchet.views.checkpoint_names import find_checkpoint, label
from ratchet.views.live_state import changes_page, live_state
from ratchet.views.presence import read_presence
from ratchet.views.topics import Reader
from ratchet.web.paging import paged
from ratchet.web.site import Fields, Page, Query, done, reason_of, site_of

ROWS = 30
router = APIRouter()


def read(reader: Reader, query: Query) -> dict[str, Any]:
    page = paged(query, ROWS)
    entries, count = changes_page(reader.session, page.limit, page.offset)
    return {
        "live": live_state(reader.session),
        "presence": read_presence(reader.session, reader.settings, clock(reader.session)),
        "entries": entries,
        "paging": page.of(count),
        "watch_s": reader.settings.serving.watch_s,
        "endpoint": endpoint_of(reader.settings),
    }


def endpoint_of(settings: Settings) -> str:
    """Where clients reach the model."""
    return settings.serving.url or announced_url(settings.serving_home) or settings.serving.base_url


@router.post("/live/rollback")
def rollback(request: Request, fields: Fields) -> Response:
    """Go back to the previous champion, and block the current weights. ``freeze`` also stops further deployments.

    ``champion`` is the one that the page showed.
    """
    reason = reason_of(fields)
    with site_of(request).writing("deployment") as tx:
        _require_shown(tx, fields)
        good = tx.session.get_one(CheckpointRow, operator_actions.rollback(tx, reason))
        if fields.get("freeze"):
            operator_actions.freeze(tx, reason)
    return done(f"{label(good)} will be live again as soon as the deployer has switched.")


@router.post("/live/freeze")
def freeze(request: Request, fields: Fields) -> Response:
    with site_of(request).writing() as tx:
        operator_actions.freeze(tx, reason_of(fields))
    return done("Frozen: what is live stays live. Training and judging continue.")


@router.post("/live/unfreeze")
def unfreeze(request: Request, fields: Fields) -> Response:
    with site_of(request).writing("deployment") as tx:
        operator_actions.unfreeze(tx, reason_of(fields))
    return done("The gate may deploy again.")


@router.post("/live/deploy")
def deploy(request: Request, fields: Fields) -> Response:
    """Make ``checkpoint`` the champion; ``force`` also one that the gate has not proved."""
    with site_of(request).writing("deployment") as tx:
        found = find_checkpoint(tx.session, _named(fields))
        operator_actions.deploy(tx, found, reason_of(fields), force=bool(fields.get("force")))
    return done(f"{label(found)} will be live as soon as the deployer has loaded and checked it.")


@router.post("/live/unblock")
def unblock(request: Request, fields: Fields) -> Response:
    with site_of(request).writing("deployment") as tx:
        found = find_checkpoint(tx.session, _named(fields))
        operator_actions.unblock(tx, found, reason_of(fields))
    return done(f"{label(found)} may be deployed again.")


def _require_shown(tx: Transaction, fields: Fields) -> None:
    """Raise PreconditionFailed if another checkpoint has become the champion than the viewer decided about."""
    shown, now = fields.get("champion", ""), serving(tx.session).desired_id
    if shown and find_checkpoint(tx.session, shown).id != now:
        champion = label(tx.session.get_one(CheckpointRow, now))
        raise PreconditionFailed(f"{champion} has become the champion meanwhile, so nothing was done: decide again.")


def _named(fields: Fields) -> str:
    name = fields.get("checkpoint", "").strip()
    if not name:
        raise PreconditionFailed("choose a checkpoint.")
    return name


PAGE = Page("live", "Live", "/live", "What is served and why, and how to change it.", read, router=router)
