"""History of the texts of all measured batches: which texts of a new batch are near one of them, and what is new.

The history is one SQLite file. It holds a MinHash sketch of each text, the hashes of the sketch's bands
(locality-sensitive hashing) and every run of three words. Memory does not grow with it. The file is a cache of what the
batches hold: where it is damaged or deleted it starts empty, and the next batches count as new.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from ratchet.data.near_duplicates import PERMUTATIONS, SEED, word_runs
from ratchet.disk import explain_home_error, home_errors
from ratchet.errors import TransientError
from rensa import RMinHash

log = logging.getLogger(__name__)

FILE = "texts.sqlite"
CHUNK = 5_000
"""Texts that are sketched at once."""

ANSWERS = 1_000
"""Newest batches whose result is kept after their texts are forgotten, for a measurement that is repeated."""

BANDS, BAND_MINIMA = 25, 5
BAND_BITS, RUN_BITS = 36, 40
"""Bits of the hash of a band and of a run. Short keys keep the tables small: with 60 million runs, a new one collides
with a known one with a chance of 0.005 %."""

SLOTS = 32
"""Texts kept for one hash of a band: the newest few are enough to find a template that was used a thousand times."""

_CACHE_KIB = 64_000
_WAIT_S = 60.0
_PRIME = np.uint64(0x9E3779B97F4A7C15)

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]

_TABLES = """
CREATE TABLE IF NOT EXISTS batches (
    id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, examples INTEGER NOT NULL, novelty TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS texts (id INTEGER PRIMARY KEY, batch INTEGER NOT NULL, sketch BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS bands (key INTEGER PRIMARY KEY, text INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS runs (hash INTEGER PRIMARY KEY, batch INTEGER NOT NULL);
CREATE TEMP TABLE own_runs (hash INTEGER PRIMARY KEY);
CREATE TEMP TABLE wanted (key INTEGER NOT NULL, place INTEGER NOT NULL);
"""
# CROSS JOIN keeps the order of ``wanted``, which is that of the keys: each page of ``bands`` is read once a chunk
_CANDIDATES = f"""
SELECT DISTINCT w.place, t.batch, t.sketch
FROM wanted AS w CROSS JOIN bands AS b ON b.key BETWEEN w.key AND w.key + {SLOTS - 1} JOIN texts AS t ON t.id = b.text
"""


class Novelty(BaseModel):
    """A batch compared with itself and with history. ``compared`` texts were searched for near-duplicates: ``repeats``
    of them are near an earlier text of the batch, ``known`` near a text of an earlier batch. Of ``runs`` different runs
    of three words ``new_runs`` were in no earlier batch."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    compared: int = 0
    repeats: int = 0
    known: int = 0
    runs: int = 0
    new_runs: int = 0


class TextHistory:
    """The newest ``most`` examples, to an eighth of that: whole batches are forgotten, the oldest first.

    ``with opened(folder, most) as history``. SQLite lets one process at a time measure a batch; others wait.
    """

    def __init__(self, database: sqlite3.Connection, most: int):
        self._db = database
        self._most = most

    @property
    def examples(self) -> int:
        return int(self._db.execute("SELECT coalesce(sum(examples), 0) FROM batches").fetchone()[0])

    def add(self, batch: str, texts: Iterable[tuple[str, bool]], threshold: float) -> Novelty:
        """Measure a batch's (text, whether to compare it) against itself and history, and remember it.

        A batch that was added before gets the same result again, so that a repeated measurement comes out the same.
        """
        self._db.execute("BEGIN IMMEDIATE")
        try:
            novelty = self._result_of(batch) or self._measure(batch, texts, threshold)
            self._forget()
        except BaseException:
            if self._db.in_transaction:  # a full disk has rolled back already
                self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")
        return novelty

    def _result_of(self, batch: str) -> Novelty | None:
        row = self._db.execute("SELECT novelty FROM batches WHERE name = ?", (batch,)).fetchone()
        return None if row is None else Novelty.model_validate_json(row[0])

    def _measure(self, name: str, texts: Iterable[tuple[str, bool]], threshold: float) -> Novelty:
        self._db.execute("DELETE FROM own_runs")
        batch, text = self._next("batches"), self._next("texts")
        examples = compared = repeats = known = 0
        stream = iter(texts)
        while chunk := list(islice(stream, CHUNK)):
            sketches = sketch([each for each, _ in chunk], [wanted for _, wanted in chunk])
            self._db.executemany(
                "INSERT OR IGNORE INTO own_runs VALUES (?)", ((run,) for run in sketches.runs.tolist())
            )
            keys = (sketches.bands * np.uint64(SLOTS)).astype(np.int64)
            earlier, own = (
                self._near_earlier(keys, sketches.bytes, threshold),
                near_within(keys, sketches.bytes, threshold),
            )
            repeats += sum(batch in earlier[place] or place in own for place in range(len(sketches)))
            known += sum(bool(batches - {batch}) for batches in earlier)
            self._remember(text, batch, keys, sketches.bytes)
            text += len(sketches)
            examples += len(chunk)
            compared += len(sketches)
        runs, new_runs = self._count_runs(batch)
        novelty = Novelty(compared=compared, repeats=repeats, known=known, runs=runs, new_runs=new_runs)
        self._db.execute("INSERT INTO batches VALUES (?, ?, ?, ?)", (batch, name, examples, novelty.model_dump_json()))
        return novelty

    def _next(self, table: str) -> int:
        return int(self._db.execute(f"SELECT coalesce(max(id), 0) + 1 FROM {table}").fetchone()[0])

    def _near_earlier(self, keys: I64, minima: U8, threshold: float) -> list[set[int]]:
        """For each text of a chunk the batches that hold a text with an estimated Jaccard index of the threshold."""
        places = np.repeat(np.arange(len(keys)), BANDS)
        order = np.argsort(keys.ravel(), kind="stable")
        rows = zip(keys.ravel()[order].tolist(), places[order].tolist(), strict=True)
        self._db.execute("DELETE FROM wanted")
        self._db.executemany("INSERT INTO wanted VALUES (?, ?)", rows)
        near: list[set[int]] = [set() for _ in keys]
        candidates = self._db.execute(_CANDIDATES)
        while found := candidates.fetchmany(CHUNK):
            sketches = np.frombuffer(b"".join(each for *_, each in found), np.uint8).reshape(len(found), -1)
            close = estimate(sketches, minima[[place for place, *_ in found]]) >= threshold
            for (place, batch, _), is_near in zip(found, close.tolist(), strict=True):
                if is_near:
                    near[place].add(batch)
        return near

    def _remember(self, first: int, batch: int, keys: I64, minima: U8) -> None:
        """Enter a chunk; under a hash of a band that has its SLOTS texts, a new text replaces an older one."""
        texts = first + np.arange(len(keys))
        self._db.executemany(
            "INSERT INTO texts VALUES (?, ?, ?)",
            ((text, batch, row.tobytes()) for text, row in zip(texts.tolist(), minima, strict=True)),
        )
        slots, owners = (keys + (texts % SLOTS)[:, None]).ravel(), np.repeat(texts, BANDS)
        order = np.argsort(slots, kind="stable")
        rows = zip(slots[order].tolist(), owners[order].tolist(), strict=True)
        self._db.executemany("INSERT OR REPLACE INTO bands VALUES (?, ?)", rows)

    def _count_runs(self, batch: int) -> tuple[int, int]:
        """The batch's different runs and how many of them no earlier batch had; they are remembered as its own."""
        (runs,) = self._db.execute("SELECT count(*) FROM own_runs").fetchone()
        (known,) = self._db.execute("SELECT count(*) FROM own_runs JOIN runs USING (hash)").fetchone()
        self._db.execute(
            "INSERT INTO runs SELECT hash, ? FROM own_runs WHERE true ORDER BY hash "  # in order: each page once
            "ON CONFLICT (hash) DO UPDATE SET batch = excluded.batch",
            (batch,),
        )
        return runs, runs - known

    def _forget(self) -> None:
        """Drop the oldest batches beyond the limit, an eighth of it at a time since this reads the whole file."""
        rows = self._db.execute("SELECT id, examples FROM batches WHERE examples > 0 ORDER BY id").fetchall()
        left, last = sum(examples for _, examples in rows), 0
        surplus = 0
        for batch, examples in rows:
            if left - examples < self._most:
                break
            left, last, surplus = left - examples, batch, surplus + examples
        if surplus and surplus >= self._most // 8:
            self._db.execute("UPDATE batches SET examples = 0 WHERE id <= ?", (last,))
            self._db.execute("DELETE FROM texts WHERE batch <= ?", (last,))
            self._db.execute("DELETE FROM bands WHERE text < (SELECT coalesce(min(id), 1 << 62) FROM texts)")
            self._db.execute("DELETE FROM runs WHERE batch <= ?", (last,))
        self._db.execute(
            "DELETE FROM batches WHERE examples = 0 AND id <= (SELECT max(id) FROM batches) - ?", (ANSWERS,)
        )


@contextmanager
def opened(folder: Path, most: int) -> Iterator[TextHistory]:
    """The history in a folder. Raises TransientError for a full disk, and for a file that proves damaged later on."""
    with home_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    file = folder / FILE
    try:
        with closing(_connected(file)) as database:
            yield TextHistory(database, most)
    except sqlite3.Error as error:
        raise _trouble(error, file) from error


def _connected(file: Path) -> sqlite3.Connection:
    try:
        return _prepared(file)
    except sqlite3.DatabaseError as error:
        if not _is_damage(error):
            raise
        _discard(file, error)
        return _prepared(file)


def _prepared(file: Path) -> sqlite3.Connection:
    database = sqlite3.connect(file, timeout=_WAIT_S, isolation_level=None)
    try:
        for pragma in (
            "journal_mode = WAL",
            "synchronous = NORMAL",
            f"cache_size = -{_CACHE_KIB}",
            "temp_store = FILE",
        ):
            database.execute(f"PRAGMA {pragma}")
        database.executescript(_TABLES)
    except BaseException:
        database.close()
        raise
    return database


def _trouble(error: sqlite3.Error, file: Path) -> Exception:
    """The error to raise for an error of SQLite. A damaged file is removed, so that the next attempt works."""
    if _is_damage(error):
        _discard(file, error)
        return TransientError(
            f"The history of texts in {file} was damaged and starts empty; the batch is measured again."
        )
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    numbers = {sqlite3.SQLITE_FULL: errno.ENOSPC, sqlite3.SQLITE_IOERR: errno.EIO, sqlite3.SQLITE_READONLY: errno.EROFS}
    found = explain_home_error(OSError(numbers[code], str(error)), file.parent) if code in numbers else None
    return found or TransientError(f"The history of texts in {file} cannot be used: {error}.")


def _is_damage(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _discard(file: Path, error: sqlite3.Error) -> None:
    log.error("the history of texts in %s is damaged and starts empty: %s", file, error)
    for suffix in ("", "-wal", "-shm"):
        file.with_name(file.name + suffix).unlink(missing_ok=True)


@dataclass(frozen=True)
class Sketches:
    """``bands`` [texts, BANDS] are hashes of BAND_BITS bits, ``bytes`` [texts, 128] one byte of each minimum.

    ``runs`` are the distinct hashes of all runs of words, sorted, of RUN_BITS bits.

    One byte of a minimum is enough to estimate a Jaccard index: two bytes agree with the chance J + (1 - J) / 256
    (b-bit minwise hashing, Li and König, WWW 2010; standard error 0.036 at 0.8). For the search, 25 bands of 5 minima
    are hashed together with the text's numbers: texts that share no band's hash are never compared. A pair at 0.8
    shares one with a chance of 99.995 %, a pair at 0.5 with 55 %.
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
    numbers = np.array([_digest(read[place][1]) for place in chosen], np.uint64)
    return Sketches(_bands(minima, numbers), minima.astype(np.uint8), _distinct(every >> np.uint64(64 - RUN_BITS)))


def estimate(one: U8, other: U8) -> NDArray[np.float64]:
    """Jaccard indices of pairs of sketches [pairs, 128]; slightly below 0 for texts with nothing in common."""
    agree = (one == other).mean(axis=1)
    return np.asarray((agree - 1 / 256) / (1 - 1 / 256), np.float64)


def near_within(keys: I64, minima: U8, threshold: float) -> set[int]:
    """The places of a chunk whose text is near an earlier text of the chunk.

    ``keys`` [texts, BANDS] are of the bands.
    """
    buckets: dict[int, list[int]] = {}
    near = set()
    for place, row in enumerate(keys.tolist()):
        others = list({other for key in row for other in buckets.get(key, ())[-SLOTS:]})
        if others and (estimate(minima[others], minima[place]) >= threshold).any():
            near.add(place)
        for key in row:
            buckets.setdefault(key, []).append(place)
    return near


def _distinct(values: U64) -> U64:
    """The different values, sorted; numpy's own ``unique`` hashes, and is ten times slower on these."""
    ordered = np.sort(values)
    return ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])] if len(ordered) else ordered


def _minima(hashes: list[list[int]]) -> NDArray[np.uint32]:
    if not hashes:
        return np.zeros((0, PERMUTATIONS), np.uint32)
    matrix = RMinHash.digest_matrix_from_token_hash_sets(hashes, PERMUTATIONS, SEED)
    return np.array(matrix.to_rows(), np.uint32)


def _bands(minima: NDArray[np.uint32], numbers: U64) -> U64:
    """One hash a band, mixed with the band's number and the text's numbers."""
    grouped = minima[:, : BANDS * BAND_MINIMA].reshape(-1, BANDS, BAND_MINIMA).astype(np.uint64)
    mixed = numbers[:, None] ^ (np.arange(1, BANDS + 1, dtype=np.uint64) * _PRIME)
    for place in range(BAND_MINIMA):
        mixed = (mixed ^ grouped[:, :, place]) * _PRIME
        mixed ^= mixed >> np.uint64(29)
    return np.asarray(mixed >> np.uint64(64 - BAND_BITS), np.uint64)


def _digest(numbers: tuple[str, ...]) -> int:
    return int.from_bytes(hashlib.blake2b("\0".join(numbers).encode(errors="replace"), digest_size=8).digest(), "big")
