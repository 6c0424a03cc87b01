"""What the server must know again after a crash: what is live, where it lies, and the highest fencing token."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ratchet.disk import disk_trouble, replacing, write_atomically
from ratchet.serving.protocol import Live

log = logging.getLogger(__name__)

_HIGHEST_TOKEN = re.compile(rb'"highest_token"\s*:\s*(\d+)\s*[,}]')


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
        """The last state written; the empty one where there is none.

        A file that cannot be read is set aside, since a server that ends here would never start again: it comes up
        empty, and the deployer brings back what is desired.
        """
        try:
            with disk_trouble(self._path.parent):
                content = self._path.read_bytes()
        except FileNotFoundError:
            return ServingState()
        try:
            return ServingState.model_validate_json(content)
        except ValidationError:
            return self._set_aside(content)

    def write(self, state: ServingState) -> None:
        """Raises TransientError for a full disk; what was written before then stays in force."""
        write_atomically(self._path, state.model_dump_json(), durable=True)

    def _set_aside(self, content: bytes) -> ServingState:
        """Keep the damaged file beside, and begin with the fencing token that can still be read in it.

        The token stands first in the file, so that one cut short has it as a rule. Where it is lost, the server obeys
        whoever speaks first. That is the deployer in charge, whose reconciliation finds nothing live, unless one that
        was taken over wakes up before it; the next switch of the one in charge then overrules that one.
        """
        aside = self._path.with_suffix(".json.damaged")
        with replacing(aside) as draft:
            draft.write_bytes(content)
        found = _HIGHEST_TOKEN.search(content)
        state = ServingState(highest_token=int(found[1]) if found else 0)
        self.write(state)
        token = (
            f"no fencing token below {state.highest_token} is obeyed, as before"
            if found
            else "the highest fencing token is lost with it, so any deployer is obeyed until the first switch"
        )
        log.error(
            "%s is damaged and was set aside as %s: nothing is live until the deployer brings it back; %s",
            self._path,
            aside.name,
            token,
        )
        return state
