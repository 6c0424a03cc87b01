"""Near-duplicates of free text, by MinHash and locality-sensitive hashing (rensa).

Two texts are near-duplicates if the sets of their three-word runs overlap by a Jaccard index of about 0.8 or more, and
they contain the same numbers: one template with other numbers is another exercise. The index is estimated from 128
permutations (standard error 0.035 at 0.8), and 32 bands of 4 miss a pair at 0.8 once in ten million.

A long instruction or system turn that all rows of a data set share would make them all near-duplicates. So of texts
with runs that are common in their data set, the other runs must overlap too, by 0.4 or more.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from rensa import RMinHash, RMinHashLSH

THRESHOLD = 0.8
OWN_THRESHOLD = 0.4
"""For the runs that are not common. Lower, since a few words around a name are few runs, of which one more word changes
a third."""
COMMON_SHARE = 0.1
FEWEST_COMMON = 3
"""A run is common in this share of the texts, and in so many at least."""
MOST_READ = 500
"""Texts that are read for common runs, so that memory is bounded."""
PERMUTATIONS = 128
_BANDS = 32
_RUN = 3
_FEW = 16
"""Sketches that are compared one by one rather than searched."""
SEED = 42
_WORD = re.compile(r"\w+", re.UNICODE)


def word_runs(text: str) -> tuple[list[str], tuple[str, ...]]:
    """The runs of three words of a text (all of a shorter one), and the words in it that hold a number, sorted."""
    words = _WORD.findall(text.casefold()) or [text]
    runs = [" ".join(words[i : i + _RUN]) for i in range(max(len(words) - _RUN + 1, 1))]
    return runs, tuple(sorted(word for word in words if _has_number(word)))


def common_runs(texts: Iterable[str]) -> frozenset[str]:
    """The runs of words that many of these texts have, as those of a shared instruction."""
    counts: Counter[str] = Counter()
    read = 0
    for text in islice(texts, MOST_READ):
        counts.update(set(word_runs(text)[0]))
        read += 1
    least = max(FEWEST_COMMON, math.ceil(COMMON_SHARE * read))
    return frozenset(run for run, count in counts.items() if count >= least)


def _has_number(word: str) -> bool:
    is_plain = word.isascii() and word.isalpha()
    return not is_plain and any(character.isnumeric() for character in word)


@dataclass(frozen=True)
class Sketch:
    """A text's sketch: the MinHash of its runs of words, its numbers, and its answer.

    ``own`` is the MinHash of the runs that are not common, None for a text without common ones.
    """

    minhash: RMinHash
    numbers: tuple[str, ...]
    answer: str
    own: RMinHash | None = None

    @classmethod
    def of(cls, text: str, answer: str = "", common: Collection[str] = ()) -> Sketch:
        runs, numbers = word_runs(text)
        own = [run for run in runs if run not in common]
        return cls(_minhash(runs), numbers, answer, None if len(own) == len(runs) else _minhash(own))

    def is_near(self, other: Sketch) -> bool:
        if self.numbers != other.numbers or self.minhash.jaccard(other.minhash) < THRESHOLD:
            return False
        return self.own is None or other.own is None or self.own.jaccard(other.own) >= OWN_THRESHOLD


def _minhash(runs: list[str]) -> RMinHash:
    minhash = RMinHash(num_perm=PERMUTATIONS, seed=SEED)
    minhash.update(runs)
    return minhash


@dataclass
class SketchIndex:
    """Sketches that can be searched, in the order in which they were added."""

    sketches: list[Sketch] = field(default_factory=list)
    by_numbers: dict[tuple[str, ...], list[int]] = field(default_factory=dict)
    hashes: RMinHashLSH = field(
        default_factory=lambda: RMinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS, num_bands=_BANDS)
    )

    def add(self, sketch: Sketch) -> None:
        place = len(self.sketches)
        self.hashes.insert(place, sketch.minhash)
        self.by_numbers.setdefault(sketch.numbers, []).append(place)
        self.sketches.append(sketch)

    def near_places(self, sketch: Sketch) -> Iterator[int]:
        """Where sketches are that are near this one."""
        same = self.by_numbers.get(sketch.numbers, [])
        # One template with many numbers fills the bands with texts that all have other numbers.
        places = same if len(same) <= _FEW else self.hashes.query(sketch.minhash)
        return (place for place in places if sketch.is_near(self.sketches[place]))

    def near(self, sketch: Sketch) -> Iterator[Sketch]:
        return (self.sketches[place] for place in self.near_places(sketch))


class NearDuplicates:
    """Searches all held-out texts, and the last ``window`` to 2 ``window`` accepted ones, so that memory is bounded.

    ``common`` are the runs that are common in the data set (``common_runs``).
    """

    def __init__(self, held_out: Iterable[str] = (), window: int = 5_000, common: Collection[str] = frozenset()):
        self._common = common
        self._held_out = SketchIndex()
        for text in held_out:
            self._held_out.add(self.sketch(text))
        self._window = window
        self._older, self._newer = SketchIndex(), SketchIndex()

    def sketch(self, text: str, answer: str = "") -> Sketch:
        """The sketch by which a text is searched here."""
        return Sketch.of(text, answer, self._common)

    def is_leak(self, sketch: Sketch) -> bool:
        """Whether a held-out text is nearly this one, whatever its answer."""
        return any(True for _ in self._held_out.near(sketch))

    def is_repeat(self, sketch: Sketch) -> bool:
        """Whether an accepted text with the same answer is nearly this one."""
        return any(near.answer == sketch.answer for index in (self._newer, self._older) for near in index.near(sketch))

    def remember(self, sketch: Sketch) -> None:
        """Include this text in later searches."""
        if len(self._newer.sketches) >= self._window:
            self._older, self._newer = self._newer, SketchIndex()
        self._newer.add(sketch)
