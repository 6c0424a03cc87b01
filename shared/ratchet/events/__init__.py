"""The typed events, and their encoding."""

from ratchet.events.catalogue import CATALOGUE, Event, decode, encode

__all__ = ["CATALOGUE", "Event", "decode", "encode"]
