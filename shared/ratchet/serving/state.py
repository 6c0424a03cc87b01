"""What the server must know again after a crash: what is live, where it lies, and the highest fencing token."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ratchet.errors import ServingError
from ratchet.serving.protocol import Live


class ServingState(BaseModel):
    """``path`` is the folder of the live checkpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    highest_token: int = 0
    live: Live | None = None
    path: str | None = None


class StateFile:
    """``state.json`` in the server's home: replaced whole, and on disk before ``write`` returns."""

    def __init__(self, home: Path):
        self._path = home / "state.json"

    def read(self) -> ServingState:
        """The last state written; the empty one where there is none. ServingError for a file that is damaged."""
        try:
            return ServingState.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return ServingState()
        except ValidationError as error:
            raise ServingError(f"{self._path} is damaged: move it away and deploy again. {error}") from error

    def write(self, state: ServingState) -> None:
        scratch = self._path.with_suffix(".tmp")
        with scratch.open("w", encoding="utf-8") as file:
            file.write(state.model_dump_json())
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
