"""The texts of all batches measured so far, on disk: has this one, or nearly this one, been there before?

A log-structured merge: every batch adds sorted segments, small neighbours are merged, full ones are left alone, and the
oldest go once there are more examples than are to be remembered. The manifest is replaced in one step and names all
that counts; what it does not name is swept away on opening. A batch that it names is not added again: the answer given
then is given again, so that a measurement that was interrupted and repeated comes out the same.
"""

from __future__ import annotations

import fcntl
import json
import logging
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from ratchet.disk import write_atomically

from miner.sketch_segment import Segment, files_of
from miner.text_sketches import sketch

log = logging.getLogger(__name__)

CHUNK = 5_000
FULL = 250_000
"""Examples of a segment from which it is not merged any more."""

ANSWERS = 1_000
"""Newest batches whose answer is kept, for a measurement that was interrupted and is repeated."""

_MANIFEST = "manifest.json"
_LOCK = ".lock"


class Novelty(BaseModel):
    """A batch beside itself and beside history. ``compared`` texts were searched for near-duplicates: ``repeats`` of
    them are near an earlier text of the batch, ``known`` near a text of an earlier batch. Of ``runs`` different runs
    of three words ``new_runs`` were in no earlier batch."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    compared: int = 0
    repeats: int = 0
    known: int = 0
    runs: int = 0
    new_runs: int = 0


class Entry(BaseModel):
    """A segment of the manifest: its files' name and how many examples it holds."""

    name: str
    examples: int


class Manifest(BaseModel):
    """What counts, the oldest first."""

    segments: list[Entry] = Field(default_factory=list)
    batches: dict[str, Novelty] = Field(default_factory=dict)


@dataclass
class _Count:
    novelty: Novelty = field(default_factory=Novelty)
    own: list[tuple[Entry, Segment]] = field(default_factory=list)


class TextHistory:
    """One folder, one user at a time: ``with opened(folder, most) as history``.

    ``most`` examples are remembered, in segments of up to ``full``.
    """

    def __init__(self, folder: Path, most: int, full: int = FULL):
        self._folder = folder
        self._most = most
        self._full = full
        self._manifest, self._segments = _read(folder)
        self._sweep()

    @property
    def examples(self) -> int:
        return sum(entry.examples for entry in self._manifest.segments)

    def add(self, batch: str, texts: Iterable[tuple[str, bool]], threshold: float) -> Novelty:
        """Measure a batch's (text, whether to compare it) against itself and history, and remember it."""
        known = self._manifest.batches.get(batch)
        if known is not None:
            return known
        count = _Count()
        stream = iter(texts)
        while chunk := list(islice(stream, CHUNK)):
            self._add_chunk(chunk, threshold, count)
        self._keep(batch, count)
        return count.novelty

    def _add_chunk(self, chunk: list[tuple[str, bool]], threshold: float, count: _Count) -> None:
        sketches = sketch([text for text, _ in chunk], [wanted for _, wanted in chunk])
        own = Segment.of(sketches)
        repeats = own.near(sketches, threshold, is_itself=True)
        for _, earlier in count.own:
            repeats |= earlier.near(sketches, threshold)
        known = np.zeros(len(sketches), bool)
        for segment in self._segments:
            known |= segment.near(sketches, threshold)
        fresh = sketches.runs[~_held(sketches.runs, [segment for _, segment in count.own])]
        before = count.novelty
        count.novelty = Novelty(
            compared=before.compared + len(sketches),
            repeats=before.repeats + int(repeats.sum()),
            known=before.known + int(known.sum()),
            runs=before.runs + len(fresh),
            new_runs=before.new_runs + int((~_held(fresh, self._segments)).sum()),
        )
        count.own.append((self._saved(own, len(chunk)), own))

    def _saved(self, segment: Segment, examples: int) -> Entry:
        entry = Entry(name=uuid.uuid4().hex, examples=examples)
        segment.save(self._folder, entry.name)
        return entry

    def _keep(self, batch: str, count: _Count) -> None:
        """Take the batch's segments into the manifest, merge what is small, forget what is old."""
        entries = [*self._manifest.segments, *(entry for entry, _ in count.own)]
        segments = [*self._segments, *(Segment.load(self._folder, entry.name) for entry, _ in count.own)]
        while len(entries) > 1 and _merges(entries[-2], entries[-1], self._full):
            later, last = segments.pop(), entries.pop()
            merged, examples = segments.pop().merged(later), entries.pop().examples + last.examples
            entries.append(self._saved(merged, examples))
            segments.append(Segment.load(self._folder, entries[-1].name))
        while entries and sum(entry.examples for entry in entries) - entries[0].examples >= self._most:
            entries, segments = entries[1:], segments[1:]
        batches = dict([*self._manifest.batches.items(), (batch, count.novelty)][-ANSWERS:])
        self._manifest, self._segments = Manifest(segments=entries, batches=batches), segments
        write_atomically(self._folder / _MANIFEST, json.dumps(self._manifest.model_dump()), durable=True)
        self._sweep()

    def _sweep(self) -> None:
        """Remove files that the manifest does not name; what is still mapped goes when it is let go."""
        named = {file for entry in self._manifest.segments for file in files_of(entry.name)}
        for file in self._folder.glob("*.npy"):
            if file.name not in named:
                file.unlink()


def _read(folder: Path) -> tuple[Manifest, list[Segment]]:
    """What is remembered. Of a manifest or a segment that a power cut left damaged, nothing is.

    The history only says how new a batch is: beginning anew costs a few batches that count as new, and refusing would
    hold up all that come.
    """
    try:
        content = (folder / _MANIFEST).read_bytes()
    except FileNotFoundError:
        return Manifest(), []
    try:
        manifest = Manifest.model_validate_json(content)
        return manifest, [Segment.load(folder, entry.name) for entry in manifest.segments]
    except (FileNotFoundError, EOFError, ValueError) as error:  # what pydantic and numpy say of a file cut short
        log.error("the history of texts in %s is damaged, and begins anew: %s", folder, error)
        return Manifest(), []


@contextmanager
def opened(folder: Path, most: int, full: int = FULL) -> Iterator[TextHistory]:
    """The history in a folder, which nobody else has open meanwhile."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield TextHistory(folder, most, full)


def _merges(earlier: Entry, later: Entry, full: int) -> bool:
    return earlier.examples + later.examples <= full and earlier.examples < 4 * later.examples


def _held(runs: np.ndarray, segments: Iterable[Segment]) -> np.ndarray:
    held = np.zeros(len(runs), bool)
    for segment in segments:
        held |= segment.holds(runs)
    return held
