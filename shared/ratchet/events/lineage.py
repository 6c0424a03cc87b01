"""What led to an event and what came of it, told by its subjects and not by who woke whom.

An event's ``cause`` names the event that woke its author. That is what happened, but not always why: a batch that
waited in the queue is trained when another one ends. So where an event tells of a subject, its origin is the event
that made this subject ready, and ``cause`` serves for the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ORIGINS: dict[str, tuple[tuple[str, ...], str]] = {
    "batch.queued": (("batch.submitted",), "batch_id"),
    "batch.rejected": (("batch.submitted",), "batch_id"),
    "coverage.measured": (("batch.queued",), "batch_id"),
    "fork.closed": (("fork.opened",), "fork_id"),
    "training.started": (("batch.queued",), "batch_id"),
    "training.failed": (("training.started",), "batch_id"),
    "checkpoint.saved": (("training.started",), "batch_id"),
    "training.finished": (("checkpoint.saved",), "checkpoint_id"),
    "checkpoint.broken": (("checkpoint.saved",), "checkpoint_id"),
    "checkpoint.evaluated": (("checkpoint.saved", "evaluation.requested"), "checkpoint_id"),
    "checkpoint.cleared": (("checkpoint.evaluated",), "checkpoint_id"),
    "checkpoint.regressed": (("checkpoint.evaluated",), "checkpoint_id"),
    "checkpoint.calibrated": (("checkpoint.evaluated",), "checkpoint_id"),
    "examples.mined": (("checkpoint.evaluated",), "checkpoint_id"),
    "evaluation.requested": (("checkpoint.evaluated", "checkpoint.cleared", "checkpoint.calibrated"), "checkpoint_id"),
    "checkpoint.deployed": (("checkpoint.evaluated",), "checkpoint_id"),
    "deployment.refused": (("checkpoint.evaluated", "checkpoint.cleared"), "checkpoint_id"),
    "deployment.rolled_back": (("checkpoint.deployed",), "checkpoint_id"),
}
"""By event: the events of the same subject it rests on, the latest earlier one counting, and the field they share."""

BEGINNINGS = frozenset({"examples.mined", "curriculum.changed", "fork.opened", "queue.low"})
"""A story begins where somebody saw a need. Within another story they are told, and not followed."""

DEPLOYED = "checkpoint.deployed"

GENERATIONS = 25
"""Checkpoints, one trained from the other, that a story is followed through while none of them goes live."""


@dataclass(frozen=True)
class Told:
    """One event of the outbox. ``fields`` are those of its kind, without the envelope."""

    id: str
    name: str
    at: float
    cause: str | None
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class Node:
    """An event in its story. ``asked`` marks the one that was asked for."""

    event: Told
    then: tuple[Node, ...]
    asked: bool = False

    def walk(self, depth: int = 0) -> Iterator[tuple[int, Node]]:
        """This node and all below it, each with its depth, in the order of telling."""
        yield depth, self
        for node in self.then:
            yield from node.walk(depth + 1)


class Lineage:
    """The origins of events, over a history in the order in which it happened.

    ``made_from`` names for a batch the events it was made from, as (name, field, value); ``parents`` for a
    checkpoint the one it was trained on from.
    """

    def __init__(
        self,
        history: Sequence[Told],
        made_from: Mapping[str, Sequence[tuple[str, str, str]]],
        parents: Mapping[str, str],
    ):
        self._made_from = made_from
        self._heirs: dict[str, list[str]] = {}
        for heir, parent in parents.items():
            self._heirs.setdefault(parent, []).append(heir)
        self._latest: dict[tuple[str, str, str], Told] = {}
        self._by_id: dict[str, Told] = {}
        self._origin: dict[str, Told] = {}
        self._then: dict[str, list[Told]] = {}
        self._saved: dict[str, Told] = {}
        for event in history:
            self._enter(event)

    def _enter(self, event: Told) -> None:
        origin = self._find_origin(event)
        if origin is not None:
            self._origin[event.id] = origin
            self._then.setdefault(origin.id, []).append(event)
        self._by_id[event.id] = event
        for field, value in event.fields.items():
            if isinstance(value, str | int):
                self._latest[event.name, field, str(value)] = event
        if event.name == "checkpoint.saved":
            self._saved[str(event.fields["checkpoint_id"])] = event

    def _find_origin(self, event: Told) -> Told | None:
        if event.name == "batch.submitted":
            keys: Iterable[tuple[str, str, str]] = self._made_from.get(str(event.fields["batch_id"]), ())
        else:
            names, field = ORIGINS.get(event.name, ((), ""))
            keys = [(name, field, str(event.fields.get(field))) for name in names]
        found = [self._latest[key] for key in keys if key in self._latest]
        if found:
            return max(found, key=lambda candidate: candidate.at)
        return self._by_id.get(event.cause or "")

    def story(self, asked: Told) -> Node:
        """The story that the event stands in: back to where somebody saw a need, and on to what came of it.

        What is trained on from a checkpoint belongs to its story until one of the line goes live, or for GENERATIONS.
        """
        first = asked
        while first.id in self._origin and (first is asked or first.name not in BEGINNINGS):
            first = self._origin[first.id]
        back = {first.id}
        event = asked
        while event is not first:
            back.add(event.id)
            event = self._origin[event.id]
        return self._node(first, asked, back, reached=False, left=GENERATIONS)

    def _node(self, event: Told, asked: Told, back: set[str], *, reached: bool, left: int) -> Node:
        """Above the asked event only the way to it is told; from there on everything that followed."""
        reached = reached or event is asked
        if reached and event is not asked and event.name in BEGINNINGS:
            return Node(event, ())
        following = self._then.get(event.id, [])
        if not reached:
            following = [f for f in following if f.id in back]
        nodes = [self._node(f, asked, back, reached=reached, left=left) for f in following]
        if reached and event.name == "checkpoint.saved" and left and not any(_goes_live(node) for node in nodes):
            heirs = self._heirs.get(str(event.fields["checkpoint_id"]), ())
            told = [self._saved[heir] for heir in heirs if heir in self._saved]
            nodes += [self._node(saved, asked, back, reached=True, left=left - 1) for saved in told]
        return Node(event, tuple(nodes), asked=event is asked)


def _goes_live(node: Node) -> bool:
    return any(each.event.name == DEPLOYED for _, each in node.walk())
