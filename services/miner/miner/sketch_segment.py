"""A sorted, immutable piece of the history of texts: files that are mapped into memory and searched as they lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from miner.text_sketches import ROW_BITS, U8, U64, Mask, Sketches, distinct, estimate

_ROW_MASK = np.uint64((1 << ROW_BITS) - 1)
_MOST_A_BUCKET = 32
"""Texts looked at for one band of one query: of a template that came a thousand times, some will do."""
_PAIRS_AT_ONCE = 200_000


@dataclass(frozen=True)
class Segment:
    """``entries`` are sorted: a band's hash above the row it belongs to. ``bytes`` [rows, 128]; ``runs`` sorted."""

    entries: U64
    bytes: U8
    runs: U64

    @classmethod
    def of(cls, sketches: Sketches) -> Self:
        rows = np.arange(len(sketches), dtype=np.uint64)[:, None]
        return cls(np.sort(((sketches.bands << np.uint64(ROW_BITS)) | rows).ravel()), sketches.bytes, sketches.runs)

    @classmethod
    def load(cls, folder: Path, name: str) -> Self:
        """Map a saved segment; nothing is read before it is searched."""
        entries, bytes_, runs = (np.load(folder / file, mmap_mode="r") for file in files_of(name))
        return cls(entries, bytes_, runs)

    def save(self, folder: Path, name: str) -> None:
        bands, bytes_, runs = (folder / file for file in files_of(name))
        np.save(bands, self.entries)
        np.save(bytes_, self.bytes)
        np.save(runs, self.runs)

    def __len__(self) -> int:
        return len(self.bytes)

    def near(self, sketches: Sketches, threshold: float, *, is_itself: bool = False) -> Mask:
        """For each text whether this segment holds a near one. Asked of ``itself``, only earlier rows count."""
        found = np.zeros(len(sketches), bool)
        if not len(self) or not len(sketches):
            return found
        queries, rows = self._candidates(sketches.bands)
        if is_itself:
            queries, rows = queries[rows < queries], rows[rows < queries]
        for start in range(0, len(queries), _PAIRS_AT_ONCE):
            part = slice(start, start + _PAIRS_AT_ONCE)
            close = estimate(sketches.bytes[queries[part]], self.bytes[rows[part]]) >= threshold
            found[queries[part][close]] = True
        return found

    def holds(self, runs: U64) -> Mask:
        """For each hash of a run whether the segment has it."""
        if not len(self.runs):
            return np.zeros(len(runs), bool)
        places = np.minimum(np.searchsorted(self.runs, runs), len(self.runs) - 1)
        return np.asarray(self.runs[places] == runs, bool)

    def merged(self, later: Segment) -> Segment:
        """Both in one; the rows of the later one come after."""
        shifted = np.asarray(later.entries) + np.uint64(len(self))
        return Segment(
            np.sort(np.concatenate([self.entries, shifted])),
            np.concatenate([self.bytes, later.bytes]),
            distinct(np.concatenate([self.runs, later.runs])),
        )

    def _candidates(self, bands: U64) -> tuple[np.ndarray, np.ndarray]:
        """Pairs of query and row that share a band, each once."""
        wanted = (bands << np.uint64(ROW_BITS)).ravel()
        order = np.argsort(wanted)
        sought = wanted[order]
        first = np.searchsorted(self.entries, sought)
        past = np.searchsorted(self.entries, sought | _ROW_MASK, side="right")
        counts = np.minimum(past - first, _MOST_A_BUCKET)
        starts = np.repeat(first - (np.cumsum(counts) - counts), counts)
        rows = np.asarray(self.entries[starts + np.arange(counts.sum())] & _ROW_MASK)
        queries = np.repeat((order // bands.shape[1]).astype(np.uint64), counts)
        pairs = distinct((queries << np.uint64(ROW_BITS)) | rows)
        return (pairs >> np.uint64(ROW_BITS)).astype(np.int64), (pairs & _ROW_MASK).astype(np.int64)


def files_of(name: str) -> tuple[str, str, str]:
    """The three files of a saved segment."""
    return f"{name}.bands.npy", f"{name}.bytes.npy", f"{name}.runs.npy"
