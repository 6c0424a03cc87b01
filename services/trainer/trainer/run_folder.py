"""The folder of a run: checkpoints on the way, and the newest place to go on from. Needs no torch."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from ratchet.errors import SettingsError

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


def keep(folder: Path, step: int) -> Path:
    """Give the segment under way its name, ``checkpoint-STEP``; of the older ones only the models stay."""
    kept = folder / f"checkpoint-{step}"
    shutil.rmtree(kept, ignore_errors=True)
    (folder / UNDER_WAY).rename(kept)
    for older in sorted(_checkpoints(folder), key=lambda place: _step(place) or 0)[:-KEPT_STATES]:
        shutil.rmtree(older / STATE_FOLDER, ignore_errors=True)
    return kept


def finish(folder: Path) -> None:
    """Put checkpoint and state of the last segment where a run's outcome is looked for."""
    for name in (MODEL_FOLDER, STATE_FOLDER):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / UNDER_WAY / name).rename(folder / name)
    shutil.rmtree(folder / UNDER_WAY)


def _checkpoints(folder: Path) -> list[Path]:
    return [place for place in folder.glob("checkpoint-*") if place.is_dir()]


def _step(place: Path) -> int | None:
    """The global step of a whole checkpoint; None for anything else."""
    if not (place / MODEL_FOLDER).is_dir():
        return None
    try:
        return int(json.loads((place / STATE_FOLDER / _STATE_FILE).read_text(encoding="utf-8"))["global_step"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
