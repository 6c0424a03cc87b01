"""The settings that the first run locks: what is recorded, and what every later run is held to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ratchet.errors import SettingsError
from ratchet.inference.facts import UNKNOWN, ModelFacts, hold, model_facts
from ratchet.inference.tiny import TINY_MODEL
from ratchet.settings import Settings

HELD_OUT_BY = ("seed", "held_out_share")
"""Settings of the suites that decide which items are held out: with others, tested items would be trained on."""

WAY_OUT = "Set it back, or begin anew with another home (or `ratchet reset`)."


def facts_to_lock(settings: Settings, facts: ModelFacts) -> dict[str, str]:
    """What the first run records. Raises SettingsError where the settings ask for another model than is there."""
    held = hold(settings.locked, facts, settings.hyperparams.max_length, settings.model.path)
    path = settings.model.path
    suites = {f"suites.{name}": str(getattr(settings.suites, name)) for name in HELD_OUT_BY}
    return {"base_model": settings.locked.base_model or path, "model_path": path, **suites, **held.recorded()}


def require_unchanged(settings: Settings, recorded: Mapping[str, str]) -> None:
    """Raise SettingsError, with old value, new value and the way out, for a change of what was locked.

    Whether it comes from the file, the environment or the command line makes no difference, nor does a model that was
    changed on disk under the same name.
    """
    _compare(settings, "model.path", settings.model.path, recorded.get("model_path"))
    for name in ("base_model", "model_architecture", "max_context_length", "vocab_size"):
        _compare(settings, f"locked.{name}", getattr(settings.locked, name), recorded.get(name))
    for name in HELD_OUT_BY:
        _compare(settings, f"suites.{name}", getattr(settings.suites, name), recorded.get(f"suites.{name}"))
    context = recorded.get("max_context_length", UNKNOWN)
    if context != UNKNOWN and settings.hyperparams.max_length > int(context):
        raise SettingsError(
            f"hyperparams.max_length {settings.hyperparams.max_length} exceeds the context length of {context} that "
            f"{settings.home} was begun with, which is locked. Set it to {context} or less."
        )
    _compare_disk(settings, recorded)


def _compare(settings: Settings, name: str, value: object, was: str | None) -> None:
    if value is not None and was is not None and str(value) != was:
        raise SettingsError(f"{name} is {value}, but {settings.home} was begun with {was}, which is locked. {WAY_OUT}")


def _compare_disk(settings: Settings, recorded: Mapping[str, str]) -> None:
    """A base model in a folder may have been exchanged; one of the hub was copied when the line began."""
    folder = Path(settings.model.path)
    if settings.model.path == TINY_MODEL or not folder.is_dir():
        return
    own = settings.model.tokenizer_path
    tokenizer = Path(own) if own is not None and Path(own).is_dir() else None
    now = model_facts(folder, tokenizer).recorded()
    for name in ("model_architecture", "vocab_size", "vocabulary"):
        if recorded.get(name) not in (None, now[name]):
            raise SettingsError(
                f"{name} of {folder} is {_short(now[name])}, but {settings.home} was begun with "
                f"{_short(recorded[name])}, which is locked. Put the model back as it was, or begin anew with another "
                "home (or `ratchet reset`)."
            )


def _short(value: str) -> str:
    return f"{value[:12]}…" if len(value) == 64 else value
