"""The folder of a run: checkpoints on the way, and the newest place to go on from. Needs no torch."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from ratchet.errors import SettingsError
from ratchet.inference.digest import file_sha256

from trainer.result import MODEL_FOLDER, STATE_FOLDER

UNDER_WAY = ".segment"
KEPT_STATES = 2
_STATE_FILE = "state.json"


def resume_point(folder: Path) -> Path:
    """The folder of checkpoint and state that is furthest: ``folder`` itself or a ``checkpoint-STEP`` in it.

    Raises SettingsError where there is none that is whole.
    """
    found = {step: place for place in [folder, *_checkpoints(folder)] if (step := _step(place)) is not None}
    if not found:
        raise SettingsError(
            f"{folder} is no run to go on from: {MODEL_FOLDER} and {STATE_FOLDER} are expected in it, or in a "
            "checkpoint-STEP below it (--resume-from-checkpoint). Leave the flag out to begin anew."
        )
    return found[max(found)]


def require_folder(folder: Path) -> None:
    """Make the folder. Raises SettingsError where a run could not write to it, before it has trained for nothing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SettingsError(f"nothing can be written to {folder} (--output-dir): {error.strerror}.") from error


def nothing_left(folder: Path, rows: Path) -> int | None:
    """The step at which the run of ``folder``, a place found by ``resume_point``, had trained on all of these rows."""
    state = _state(folder)
    if state is None or not rows.is_file():
        return None
    position = state["position"]
    is_done = position["offset"] >= position["rows"] and position["digest"] == file_sha256(rows)
    return int(state["global_step"]) if is_done else None


def resumed_step(resume_from: Path | None) -> int:
    """The global step of the state that is gone on with; -1 for a run that begins anew."""
    step = _step(resume_from.parent) if resume_from is not None else None
    return -1 if step is None else step


def forget_beyond(folder: Path, step: int) -> None:
    """Remove the states, not the models, that another run left here after ``step``: they are not this one's."""
    for place in [folder, *_checkpoints(folder)]:
        if (found := _step(place)) is not None and found > step:
            shutil.rmtree(place / STATE_FOLDER)


def keep(folder: Path, step: int) -> Path:
    """Give the segment under way its name, ``checkpoint-STEP``; of the older ones only the models stay."""
    kept = folder / f"checkpoint-{step}"
    shutil.rmtree(kept, ignore_errors=True)
    (folder / UNDER_WAY).rename(kept)
    for older in sorted(_checkpoints(folder), key=lambda place: _step(place) or 0)[:-KEPT_STATES]:
        shutil.rmtree(older / STATE_FOLDER, ignore_errors=True)
    return kept


def finish(folder: Path) -> None:
    """Put checkpoint and state of the last segment where a run's outcome is looked for.

    The old state goes first and the new one comes last: killed anywhere between, no state stands beside a checkpoint
    that is not its own.
    """
    under_way = folder / UNDER_WAY
    before = under_way / "before"
    before.mkdir()
    for name in (STATE_FOLDER, MODEL_FOLDER):
        if (folder / name).exists():
            (folder / name).rename(before / name)
    for name in (MODEL_FOLDER, STATE_FOLDER):
        (under_way / name).rename(folder / name)
    shutil.rmtree(under_way)


def _checkpoints(folder: Path) -> list[Path]:
    return [place for place in folder.glob("checkpoint-*") if place.is_dir()]


def _step(place: Path) -> int | None:
    """The global step of a whole checkpoint; None for anything else."""
    state = _state(place)
    return int(state["global_step"]) if state is not None and (place / MODEL_FOLDER).is_dir() else None


def _state(place: Path) -> dict[str, Any] | None:
    """What stands in the state of a checkpoint; None where it cannot be read."""
    try:
        state: dict[str, Any] = json.loads((place / STATE_FOLDER / _STATE_FILE).read_text(encoding="utf-8"))
        return {**state, "global_step": int(state["global_step"]), "position": dict(state["position"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None
