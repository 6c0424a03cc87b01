"""Near-duplicates and novelty against history: beside brute force, after crashes, and when texts are forgotten."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from miner import text_history
from miner.text_history import ANSWERS, BANDS, FILE, Novelty, estimate, opened, sketch
from ratchet.data.near_duplicates import word_runs
from ratchet.errors import TransientError

WORDS = [f"{a}{b}{c}" for a in "bdgklm" for b in "aeiou" for c in "nrst"]


def text(seed: int, words: int = 40) -> str:
    random = Random(seed)
    return " ".join(random.choice(WORDS) for _ in range(words))


def changed(seed: int, places: int) -> str:
    """The text with this number of words replaced."""
    random, words = Random(-seed - 1), text(seed).split()
    for place in random.sample(range(len(words)), places):
        words[place] = "other"
    return " ".join(words)


def jaccard(one: str, other: str) -> float:
    a, b = (set(word_runs(each)[0]) for each in (one, other))
    return len(a & b) / len(a | b)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "history"


def add(folder: Path, batch: str, texts: list[str], most: int = 1_000_000) -> Novelty:
    with opened(folder, most) as history:
        return history.add(batch, [(each, True) for each in texts], 0.8)


def test_near_duplicates_agree_with_brute_force(folder: Path) -> None:
    """Every pair of 150 texts with their changed copies: what the search finds is what an exact Jaccard finds."""
    texts = [text(seed) for seed in range(150)] + [changed(seed, seed % 6) for seed in range(150)]
    with opened(folder, 1_000) as history:
        history.add("originals", [(each, True) for each in texts[:150]], 0.8)
        found = [history.add(str(n), [(each, True)], 0.8).known == 1 for n, each in enumerate(texts[150:])]
    best = [max(jaccard(later, earlier) for earlier in texts[:150]) for later in texts[150:]]
    clear = [(near, exact) for near, exact in zip(found, best, strict=True) if abs(exact - 0.8) > 0.12]
    assert len(clear) > 60
    assert all(near == (exact >= 0.8) for near, exact in clear)


def test_the_estimate_is_near_the_truth() -> None:
    pairs = [(text(seed), changed(seed, seed % 8)) for seed in range(120)]
    one, other = (sketch([pair[side] for pair in pairs], [True] * 120).bytes for side in (0, 1))
    errors = estimate(one, other) - np.array([jaccard(*pair) for pair in pairs])
    assert abs(errors.mean()) < 0.02
    assert np.sqrt((errors**2).mean()) < 0.06


def test_one_template_with_other_numbers_is_another_text(folder: Path) -> None:
    base = text(1)
    assert add(folder, "b1", [f"{base} 12", f"{base} 13", f"{base} 12"]).repeats == 1


def test_repeats_within_a_batch_and_in_history_are_counted_separately(folder: Path) -> None:
    first = add(folder, "b1", [text(1), text(2), text(1)])
    assert (first.compared, first.repeats, first.known) == (3, 1, 0)
    assert first.new_runs == first.runs > 0
    second = add(folder, "b2", [text(2), text(3)])
    assert (second.repeats, second.known) == (0, 1)
    assert 0.4 < second.new_runs / second.runs < 0.6


def test_only_wanted_texts_are_compared_but_all_runs_are_counted(folder: Path) -> None:
    with opened(folder, 100) as history:
        found = history.add("b1", [(text(1), False), (text(1), False), (text(2), True)], 0.8)
    assert (found.compared, found.repeats) == (1, 0)
    assert found.runs > 60


def test_a_batch_added_again_gets_the_same_answer_and_counts_once(folder: Path) -> None:
    first = add(folder, "b1", [text(1)])
    assert add(folder, "b1", [text(1)]) == first
    with opened(folder, 100) as history:
        assert history.examples == 1


def test_additions_of_a_killed_run_are_rolled_back(folder: Path) -> None:
    add(folder, "b1", [text(1)])

    def broken() -> Iterator[tuple[str, bool]]:
        yield from ((text(seed), True) for seed in range(text_history.CHUNK + 1))
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"), opened(folder, 10**6) as history:
        history.add("b2", broken(), 0.8)
    again = add(folder, "b3", [text(5), text(1)])
    assert (again.known, again.repeats) == (1, 0)
    with opened(folder, 10**6) as history:
        assert history.examples == 3


def test_many_small_batches_are_found_again(folder: Path) -> None:
    for batch in range(12):
        add(folder, f"b{batch}", [text(100 * batch + n) for n in range(5)])
    with opened(folder, 1_000) as history:
        assert history.examples == 60
        again = history.add("again", [(text(100 * batch + n), True) for batch in range(12) for n in range(5)], 0.8)
    assert (again.known, again.new_runs) == (60, 0)


def test_the_oldest_are_forgotten(folder: Path) -> None:
    for batch in range(6):
        add(folder, f"b{batch}", [text(100 * batch + n) for n in range(10)], most=20)
    found = add(folder, "again", [text(100 * batch) for batch in range(6)], most=20)
    assert found.known == 2


def test_an_empty_batch_can_be_added(folder: Path) -> None:
    assert add(folder, "b1", []) == Novelty()
    assert add(folder, "b2", [""]).compared == 1


@given(st.lists(st.text(max_size=30), min_size=1, max_size=6))
def test_any_text_can_be_sketched(texts: list[str]) -> None:
    made = sketch(texts, [True] * len(texts))
    assert made.bands.shape == (len(texts), BANDS)
    assert (estimate(made.bytes, made.bytes) == 1).all()


def test_a_template_that_comes_often_is_found_and_takes_little_room(folder: Path) -> None:
    found = add(folder, "b1", [f"{text(1)} {text(n, words=2)}" for n in range(300)])
    assert found.repeats == 299
    with closing(sqlite3.connect(folder / FILE)) as database:
        (entries,) = database.execute("SELECT count(*) FROM bands").fetchone()
    assert entries < 300 * BANDS / 2


def test_a_run_is_forgotten_with_the_last_batch_that_had_it(folder: Path) -> None:
    add(folder, "b1", [text(1), text(2)], most=2)
    add(folder, "b2", [text(2), text(3)], most=2)
    found = add(folder, "b3", [text(2), text(1)], most=2)
    assert 0.4 < found.new_runs / found.runs < 0.6


def test_results_are_kept_of_the_newest_batches_alone(folder: Path) -> None:
    add(folder, "old", [text(1)], most=1)
    with closing(sqlite3.connect(folder / FILE)) as database, database:
        rows = ((str(number), 0, "{}") for number in range(ANSWERS - 1))
        database.executemany("INSERT INTO batches (name, examples, novelty) VALUES (?, ?, ?)", rows)
    add(folder, "new", [text(2)], most=1)
    with closing(sqlite3.connect(folder / FILE)) as database:
        kept = [name for (name,) in database.execute("SELECT name FROM batches ORDER BY id")]
    assert (len(kept), kept[0], kept[-1]) == (ANSWERS, "0", "new")


@pytest.mark.parametrize("left", [b"", b"\0" * 200, b"not a database", None])
def test_a_damaged_history_starts_empty(tmp_path: Path, left: bytes | None) -> None:
    texts = [(text(seed), True) for seed in range(20)]
    with opened(tmp_path, most=1_000) as history:
        history.add("first", texts, 0.8)
    if left is None:
        (tmp_path / FILE).unlink()
    else:
        (tmp_path / FILE).write_bytes(left)
    for _ in range(2):
        with opened(tmp_path, most=1_000) as history:
            assert history.add("second", texts, 0.8).known == 0
    with opened(tmp_path, most=1_000) as history:
        assert history.add("third", texts, 0.8).known == 20


def test_damage_inside_the_file_is_found_on_use_and_the_next_attempt_starts_empty(tmp_path: Path) -> None:
    texts = [(text(seed), True) for seed in range(200)]
    with opened(tmp_path, most=1_000) as history:
        history.add("first", texts, 0.8)
    content = bytearray((tmp_path / FILE).read_bytes())
    content[2 * 4096 :] = b"\xff" * (len(content) - 2 * 4096)
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(TransientError, match="starts empty"), opened(tmp_path, most=1_000) as history:
        history.add("second", texts, 0.8)
    with opened(tmp_path, most=1_000) as history:
        assert history.add("second", texts, 0.8).known == 0
