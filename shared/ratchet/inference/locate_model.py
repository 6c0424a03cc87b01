"""The folder of a model: one that was named, or a copy of a hub's repository in its local cache."""

from __future__ import annotations

import os
from pathlib import Path

from ratchet.disk import is_full
from ratchet.errors import SettingsError

PATTERNS = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt")
"""The files that make a model."""

SECOND_SETS = ("consolidated*", "*/*")
"""Files of hub repositories with the same weights once more, in the format of the model's makers."""


def hub_cache() -> Path:
    """Where repositories of the hub are downloaded to: HF_HUB_CACHE, or the folder ``hub`` of HF_HOME or of the user's
    cache (https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables)."""
    if named := os.environ.get("HF_HUB_CACHE"):
        return Path(named).expanduser()
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("HF_HOME") or Path(caches, "huggingface")).expanduser() / "hub"


def located(name: str, what: str) -> Path:
    """The folder ``name``, or the hub's repository of that name, which is downloaded where that is allowed.

    Raises SettingsError, which begins with ``what``.
    """
    if Path(name).is_dir():
        return Path(name)
    if Path(name).is_absolute() or name.startswith("."):
        raise SettingsError(f"{what} {name}: no such folder.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(PATTERNS), ignore_patterns=list(SECOND_SETS)))
    except (LocalEntryNotFoundError, RepositoryNotFoundError, HFValidationError, OSError) as error:
        if isinstance(error, OSError) and is_full(error):
            raise SettingsError(
                f"{what} {name} does not fit on the disk of {hub_cache()}: make room there, or set HF_HOME to a folder "
                "on a larger disk."
            ) from error
        raise SettingsError(
            f"{what} {name} is neither a folder nor a model of the hub or its local cache: {error}"
        ) from error
