"""The typed catalogue of events and their wire form."""

from ratchet.events.catalogue import CATALOGUE, Event, decode, encode

__all__ = ["CATALOGUE", "Event", "decode", "encode"]
