"""The plug-in point for a source of examples, with its order, drafts and context."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

from pydantic import BaseModel, ConfigDict, ValidationError
from ratchet.errors import SettingsError, UnknownPlugin
from ratchet.plugins import GENERATORS
from ratchet.settings.serving import InferenceSettings

Cell = tuple[str, int]
"""A family's name and a level."""


class Order(BaseModel):
    """``count`` examples of these levels, by weight. Equal orders should give equal drafts where the source allows it.

    A batch takes several orders where some drafts are refused; ``part`` counts them from 0.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int
    part: int
    count: int
    weights: tuple[tuple[str, int, float], ...]


class Draft(NamedTuple):
    """One example on its way into a batch: its level, the key of its item, and its line of JSON."""

    cell: Cell
    key: str
    line: str


@dataclass
class Tally:
    """What a generator refused by itself, by reason, and what its examples cost."""

    refused: Counter[str] = field(default_factory=Counter)
    cost: Counter[str] = field(default_factory=Counter)


def nothing(_note: object) -> None:
    """Ignores progress and cost."""


@dataclass
class GenerationContext:
    """What a generator works with. ``folder`` is its own, and removed afterwards.

    ``child`` runs ``module:function`` with a JSON spec in its own process; None makes everything here. ``paid`` is
    called at once with the usage of a model server, so that it counts even if the batch fails.
    """

    held_out: Container[str]
    folder: Path
    workers: int = 1
    inference: InferenceSettings = field(default_factory=InferenceSettings)
    child: Callable[[str, Mapping[str, Any]], dict[str, Any]] | None = None
    progress: Callable[[str], None] = nothing
    tally: Tally = field(default_factory=Tally)
    paid: Callable[[Mapping[str, int]], None] = nothing

    def charge(self, requests: int, prompt_tokens: int, answer_tokens: int) -> None:
        """Count what was used of a model server."""
        used = {"requests": requests, "prompt_tokens": prompt_tokens, "answer_tokens": answer_tokens}
        self.tally.cost.update(used)
        self.paid(used)


@runtime_checkable
class Generator(Protocol):
    """A source of examples, made by calling its class with the options of the settings.

    The caller checks drafts against the rules of a batch and refuses those that break them.
    """

    @property
    def version(self) -> str:
        """Version of its output: another version may answer the same order differently."""
        ...

    def drafts(self, order: Order, context: GenerationContext) -> Iterator[Draft]:
        """Examples that answer the order, each with a true gold; fewer where it has no more.

        Raises TransientError if its server or command is unavailable, GenerationError or DataError if it is wrong.
        """
        ...


def make_generator(name: str, options: Mapping[str, Any]) -> Generator:
    """The generator of this name. Raises UnknownPlugin, or SettingsError for options that it does not have."""
    point = next((point for point in entry_points(group=GENERATORS) if point.name == name), None)
    if point is None:
        raise UnknownPlugin(f"no generator {name!r} (generation.sources). Known: {', '.join(known_generators())}.")
    try:
        return cast(Generator, point.load()(**options))
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise SettingsError(f"options of the generator {name} are wrong:\n" + "\n".join(lines)) from error
    except TypeError as error:
        raise SettingsError(f"options of the generator {name} are wrong: {error}") from error


def known_generators() -> list[str]:
    """Names of the installed generators."""
    return sorted(point.name for point in entry_points(group=GENERATORS))
