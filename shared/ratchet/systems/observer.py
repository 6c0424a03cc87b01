"""Whoever wants to know what a controller does: its status file, its metrics."""

from __future__ import annotations

from ratchet.events import Event
from ratchet.systems.verdict import Outcome, Subject


class Observer:
    """Is told of each step, in the thread that takes it, and must be quick. Override what is of interest."""

    def heard(self, event: Event) -> None:
        """The listener has read an event of the system."""

    def started(self, lane: str, cause: str | None) -> None:
        """The lane begins to look; ``cause`` is the id of the event that rang, or None for a sweep."""

    def claimed(self, lane: str, subject: Subject) -> None:
        """The lane begins to work on a claimed subject."""

    def decided(self, lane: str, subject: Subject, outcome: Outcome, took_s: float) -> None:
        """A verdict, or that the subject is not ready, is committed; it took so long since the claim."""

    def failed(self, lane: str, subject: Subject, killed: bool) -> None:
        """The work raised an error that counts against the subject; ``killed``: its process died."""

    def waited(self, lane: str) -> None:
        """The lane, or a subject of it, waits for something that is no fault of theirs (see Controller.troubles)."""

    def recovered(self, lane: str) -> None:
        """Something that the lane has waited for is there again."""
