"""Who is asked: a model in a folder, one of the hub or its local cache, or one behind an OpenAI chat API."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from ratchet.errors import PreconditionFailed
from ratchet.inference.locate_model import located

_ADDRESS = re.compile(r"https?://", re.IGNORECASE)
PEFT = "adapter_config.json"


@dataclass(frozen=True)
class Folder:
    """Weights that this machine loads. ``name`` is what was asked for."""

    name: str
    path: Path

    @property
    def digest(self) -> str:
        """Of the place: weights that change there are noticed by their own digest."""
        return _digest(str(self.path.resolve()))


@dataclass(frozen=True)
class Endpoint:
    """A model of a server."""

    url: str
    model: str

    @property
    def name(self) -> str:
        return f"{self.url}#{self.model}"

    @property
    def digest(self) -> str:
        return _digest(self.name)


Subject = Folder | Endpoint


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]


def find_subject(text: str) -> Subject:
    """A folder, ``ORG/NAME`` of the hub, or ``URL#MODEL``. Raises PreconditionFailed, with the way out."""
    if not _ADDRESS.match(text):
        path = located(text, "the model")
        if (path / PEFT).is_file() and not (path / "config.json").is_file():
            raise PreconditionFailed(
                f"{text} holds adapters alone: merge them into their base first (peft's merge_and_unload, then "
                "save_pretrained)."
            )
        return Folder(text, path)
    url, _, model = text.partition("#")
    if not model:
        raise PreconditionFailed(f"{text} names no model: write it as {url.rstrip('/')}#MODEL.")
    return Endpoint(url, model)
