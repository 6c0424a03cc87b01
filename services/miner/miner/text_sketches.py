"""Sketches of many texts at once, as arrays: what the history of texts is made of.

From a text's runs of three words come 128 minima (rensa). Of each minimum one byte is kept, which is enough to estimate
a Jaccard index: two bytes agree with chance J + (1 - J) / 256 (b-bit minwise hashing, Li and König, WWW 2010; standard
error 0.036 at 0.8). For the search, 25 bands of 5 minima are hashed together with the text's numbers: two texts that
share no band's hash are never compared. A pair at 0.8 shares one with a chance of 99.995 %, a pair at 0.5 with 55 %.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

from miner.near_duplicates import PERMUTATIONS, SEED, word_runs

BANDS, BAND_MINIMA = 25, 5
HASH_BITS, ROW_BITS = 36, 28
"""A band's entry in an index: the upper bits are its hash, the lower ones the row."""

_PRIME = np.uint64(0x9E3779B97F4A7C15)

U64 = NDArray[np.uint64]
U8 = NDArray[np.uint8]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Sketches:
    """``bands`` [texts, BANDS] are hashes of 36 bits, ``bytes`` [texts, 128] one byte of each minimum.

    ``runs`` are the distinct hashes of all runs of words, sorted.
    """

    bands: U64
    bytes: U8
    runs: U64

    def __len__(self) -> int:
        return len(self.bytes)


def sketch(texts: Sequence[str], compared: Sequence[bool]) -> Sketches:
    """Sketch those texts that are ``compared``; the runs are those of all texts."""
    read = [word_runs(text) for text in texts]
    hashes = RMinHash.hash_token_sets([runs for runs, _ in read])
    every = np.array([value for row in hashes for value in row], np.uint64)
    chosen = [place for place, wanted in enumerate(compared) if wanted]
    minima = _minima([hashes[place] for place in chosen])
    figures = np.array([_digest(read[place][1]) for place in chosen], np.uint64)
    return Sketches(_bands(minima, figures), minima.astype(np.uint8), distinct(every))


def estimate(one: U8, other: U8) -> NDArray[np.float64]:
    """Jaccard indices of pairs of sketches [pairs, 128]; slightly below 0 for texts with nothing in common."""
    agree = (one == other).mean(axis=1)
    return np.asarray((agree - 1 / 256) / (1 - 1 / 256), np.float64)


def distinct(values: U64) -> U64:
    """The different values, sorted; numpy's own ``unique`` hashes, and is ten times slower on these."""
    ordered = np.sort(values)
    return ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])] if len(ordered) else ordered


def _minima(hashes: list[list[int]]) -> NDArray[np.uint32]:
    if not hashes:
        return np.zeros((0, PERMUTATIONS), np.uint32)
    matrix = RMinHash.digest_matrix_from_token_hash_sets(hashes, PERMUTATIONS, SEED)
    return np.array(matrix.to_rows(), np.uint32)


def _bands(minima: NDArray[np.uint32], figures: U64) -> U64:
    """One hash a band, mixed with the band's number and the text's numbers."""
    grouped = minima[:, : BANDS * BAND_MINIMA].reshape(-1, BANDS, BAND_MINIMA).astype(np.uint64)
    mixed = figures[:, None] ^ (np.arange(1, BANDS + 1, dtype=np.uint64) * _PRIME)
    for place in range(BAND_MINIMA):
        mixed = (mixed ^ grouped[:, :, place]) * _PRIME
        mixed ^= mixed >> np.uint64(29)
    return np.asarray(mixed >> np.uint64(64 - HASH_BITS), np.uint64)


def _digest(figures: tuple[str, ...]) -> int:
    return int.from_bytes(hashlib.blake2b("\0".join(figures).encode(errors="replace"), digest_size=8).digest(), "big")
