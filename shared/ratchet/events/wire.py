"""The one encoding of events. Whatever fails in decoding is one error: EventError."""

from __future__ import annotations

import json

from pydantic import ValidationError

from ratchet.errors import EventError
from ratchet.events.catalogue import CATALOGUE, Event


def encode(event: Event) -> str:
    """One JSON object: ``name``, ``major`` and the event's own fields."""
    return json.dumps({"name": event.name, "major": event.major, **event.model_dump(mode="json")})


def decode(text: str | bytes) -> Event:
    """The inverse of encode. Unknown fields are dropped; an unknown name or major version is refused."""
    try:
        fields = json.loads(text)
        kind = CATALOGUE[fields.pop("name")]
        major = fields.pop("major")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EventError(f"not an event of this catalogue: {text!r:.200} ({error})") from error
    if major != kind.major:
        raise EventError(
            f"{kind.name} has major version {major}, this worker reads {kind.major}; upgrade the older side."
        )
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise EventError(f"{kind.name}: {error}") from error
