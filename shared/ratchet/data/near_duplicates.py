"""Near-duplicates of free text, by MinHash and locality-sensitive hashing (rensa).

Two texts are near-duplicates if the sets of their three-word runs overlap by a Jaccard index of about 0.8 or more, and
they contain the same numbers: one template with other numbers is another exercise. The index is estimated from 128
permutations (standard error 0.035 at 0.8), and 32 bands of 4 miss a pair at 0.8 once in ten million.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from rensa import RMinHash, RMinHashLSH

THRESHOLD = 0.8
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


def _has_number(word: str) -> bool:
    is_plain = word.isascii() and word.isalpha()
    return not is_plain and any(character.isnumeric() for character in word)


@dataclass(frozen=True)
class Sketch:
    """A text's sketch: the MinHash of its runs of words, its numbers, and its answer."""

    minhash: RMinHash
    numbers: tuple[str, ...]
    answer: str

    @classmethod
    def of(cls, text: str, answer: str = "") -> Sketch:
        runs, numbers = word_runs(text)
        minhash = RMinHash(num_perm=PERMUTATIONS, seed=SEED)
        minhash.update(runs)
        return cls(minhash, numbers, answer)

    def is_near(self, other: Sketch) -> bool:
        return self.numbers == other.numbers and self.minhash.jaccard(other.minhash) >= THRESHOLD


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
    """Searches all held-out texts, and the last ``window`` to 2 ``window`` accepted ones, so that memory is bounded."""

    def __init__(self, held_out: Iterable[str] = (), window: int = 5_000):
        self._held_out = SketchIndex()
        for text in held_out:
            self._held_out.add(Sketch.of(text))
        self._window = window
        self._older, self._newer = SketchIndex(), SketchIndex()

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
