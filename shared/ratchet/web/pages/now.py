"""The first page: what every part of the loop does this minute, and how the checkpoints learn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast, get_args

from sqlalchemy.orm import Session

from ratchet.errors import PreconditionFailed
from ratchet.ledger.queue import low_mark, supply
from ratchet.systems import registry
from ratchet.views.curves import By, learning_curves
from ratchet.views.presence import read_presence
from ratchet.views.reading import read_view
from ratchet.views.system_states import backlog
from ratchet.views.topics import Reader
from ratchet.views.view_model import Busy, View, last_preview, plain, training_line
from ratchet.web.alerts import firing_alerts
from ratchet.web.machine import machine
from ratchet.web.site import Page, Query
from ratchet.wording import shortened

ACTIVITIES = 14
MOST_WORK = 80
"""Characters of what a system works on."""
STAGES = {
    "generation": "data",
    "correction": "data",
    "diversity": "data",
    "curriculum": "data",
    "training": "training",
    "deployment": "deployment",
}
"""Where a system is drawn; any other, also of a plug-in, judges."""

_BEGINNINGS = {"train_loss": "training saves"}


@dataclass(frozen=True)
class Part:
    """A system in the picture: what it works on now, and how much waits for it since when."""

    name: str
    busy: Busy | None
    waiting: int
    oldest_at: float | None
    is_failing: bool

    @property
    def work(self) -> str:
        """What it works on. A note often begins with the subject, which is then not said twice."""
        if self.busy is None:
            return ""
        subject, note = plain(self.busy.subject), plain(self.busy.note).removeprefix(plain(self.busy.subject)).strip()
        return shortened(f"{subject}: {note}" if note else subject, MOST_WORK)


def read(reader: Reader, _query: Query) -> dict[str, Any]:
    session = reader.session
    view = read_view(reader.ledger, reader.settings, checkpoints=6, activities=ACTIVITIES)
    parts = list(_parts(session, view))
    stages: dict[str, list[Part]] = {}
    for part in parts:
        stages.setdefault(STAGES.get(part.name, "judging"), []).append(part)
    waiting = [part for part in parts if part.oldest_at is not None]
    left = supply(session)
    return {
        "view": view,
        "presence": read_presence(session, reader.settings, view.at),
        "stages": stages,
        "busy_stages": {stage for stage, found in stages.items() if any(part.busy for part in found)},
        "oldest": min(waiting, key=lambda part: part.oldest_at or 0.0, default=None),
        "minutes_left": left.minutes,
        "low_water": low_mark(reader.settings),
        "training_line": training_line(replace(view.training, step=None)),  # the step stands above it
        "answers": last_preview(view.previews) if view.previews else [],
        "machine": machine(reader.settings),
        "alerts": firing_alerts(reader.settings.web.prometheus_url),
        "has_loss": any(score.metric == "loss" for each in view.checkpoints for score in each.scores.values()),
        "curve_version": view.checkpoints[0].ordinal if view.checkpoints else 0,
    }


def _parts(session: Session, view: View) -> Iterator[Part]:
    busy = {each.system: each for each in view.busy}
    failing = {name.partition("@")[0] for name, state in view.workers.items() if state == "failed"}
    for system in registry.known(session):
        first, count = backlog(session, system)
        yield Part(system.name, busy.get(system.name), count, first, system.name in failing)


def curves(reader: Reader, query: Query) -> Mapping[str, Any]:
    """The learning curves as charts.js takes them: ``by`` family, level, loss or train_loss."""
    by = query.get("by", "family")
    if by not in get_args(By):
        raise PreconditionFailed(f"there are no curves by {by!r}; there are: {', '.join(get_args(By))}.")
    found = learning_curves(reader.session, cast("By", by))
    is_loss = by in ("loss", "train_loss")
    return {
        "x": found.steps,
        "xLabel": "step",
        "unit": "" if is_loss else "%",
        "digits": 3 if is_loss else 1,
        "range": None if is_loss else [0, 100],
        "series": [{"label": name, "values": values} for name, values in found.series.items()],
        "marks": [{"x": step, "label": f"#{ordinal} live"} for step, ordinal in found.deployments],
        "empty": f"The curve begins with the first checkpoint that {_BEGINNINGS.get(by, 'testing has measured')}.",
    }


PAGE = Page("now", "Now", "/", "What the loop does this minute.", read, {"/curves.json": curves})
