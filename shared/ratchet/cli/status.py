"""`ratchet status` and `ratchet watch`: print the view once, or follow it as it changes."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Annotated, Any

from ratchet.cli.output import Json, console, print_json, say
from ratchet.cli.screen import ChangeLines, Frame, Screen, draw
from ratchet.home import opened
from ratchet.ledger import Ledger
from ratchet.run import run_lock
from ratchet.settings import Settings
from ratchet.views.checkpoint_names import checkpoint_folder, find_checkpoint
from ratchet.views.reading import read_view
from ratchet.views.view_model import View

EVERY_S = 0.5


def status(as_json: Annotated[bool, Json] = False) -> None:
    """Show what is going on right now: queue, training, checkpoints, what is live and why.

    Works with or without an active run, since everything is in the ledger.
    """
    with opened() as (settings, ledger):
        view = read_view(ledger, settings)
        holder = run_lock.find_run(settings.home)
        folder = _live_folder(settings, ledger) if view.live is not None else None
        if as_json:
            running = {"running": holder is not None, "running_pid": holder.pid if holder is not None else None}
            print_json({**running, **as_values(view), "live_folder": folder})
            return
        out = console()
        out.print(draw(view, Frame(out.width, 40, heading(holder, view.hosts))))
        if view.live is not None and folder is not None:
            say(f"files of #{view.live.desired}: {folder}")


def _live_folder(settings: Settings, ledger: Ledger) -> str | None:
    with ledger.read() as session:
        return checkpoint_folder(settings, find_checkpoint(session, "champion"))


def watch() -> None:
    """Show the view live: in a terminal as a whole, elsewhere one line per change. Ctrl-C leaves the run alone."""
    with opened() as (settings, ledger):
        out = console()
        changes = ChangeLines(ledger)
        with Screen(out) as screen:
            try:
                while True:
                    view = read_view(ledger, settings)
                    holder = run_lock.find_run(settings.home)
                    screen.show(view, heading(holder, view.hosts), "Ctrl-C leaves; the run continues", changes)
                    time.sleep(EVERY_S)
            except KeyboardInterrupt:
                return


def heading(holder: run_lock.RunHolder | None, hosts: Mapping[str, int]) -> str:
    """Text on what is running: this home's run, or else the number of workers on any machine."""
    if holder is not None:
        return f"running, {holder}"
    if not hosts:
        return "not running: `ratchet run`"
    workers = sum(hosts.values())
    return f"running, {workers} worker{'s' * (workers > 1)} on {', '.join(hosts)}"


def as_values(view: View) -> dict[str, Any]:
    """A view for JSON: levels become ``family/level`` keys."""

    def checkpoint(values: dict[str, Any]) -> dict[str, Any]:
        levels = values.pop("levels")
        overall = values.pop("overall")
        scores = values.pop("scores")
        return {
            **values,
            "eval": overall.model_dump() if overall else None,
            "levels": {f"{family}/{level}": rate.model_dump() for (family, level), rate in levels.items()},
            "scores": {family: score.model_dump() for family, score in scores.items()},
        }

    plain = {field.name: getattr(view, field.name) for field in dataclasses.fields(view)}
    plain["checkpoints"] = [checkpoint(_shallow(c)) for c in view.checkpoints]
    for name in ("queue", "training", "live"):
        plain[name] = _shallow(plain[name]) if plain[name] is not None else None
    plain["activities"] = [_shallow(h) for h in view.activities]
    plain["previews"] = [preview.model_dump() for preview in view.previews]
    plain["tasks"] = [_shallow(task) for task in view.tasks]
    plain["busy"] = [_shallow(b) for b in view.busy]
    return plain


def _shallow(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
