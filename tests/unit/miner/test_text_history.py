"""Near-duplicates and novelty against history: beside brute force, after crashes, merged and forgetting."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from miner import text_history
from miner.near_duplicates import word_runs
from miner.sketch_segment import Segment
from miner.text_history import Novelty, TextHistory, opened
from miner.text_sketches import BANDS, estimate, sketch

WORDS = [f"{a}{b}{c}" for a in "bdgklm" for b in "aeiou" for c in "nrst"]


def text(seed: int, words: int = 40) -> str:
    random = Random(seed)
    return " ".join(random.choice(WORDS) for _ in range(words))


def changed(seed: int, places: int) -> str:
    """The text with so many of its words replaced."""
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


def add(folder: Path, batch: str, texts: list[str], most: int = 1_000_000, full: int = text_history.FULL) -> Novelty:
    with opened(folder, most, full) as history:
        return history.add(batch, [(each, True) for each in texts], 0.8)


def test_against_brute_force() -> None:
    """Every pair of 150 texts with their changed copies: what the search finds is what an exact Jaccard finds."""
    texts = [text(seed) for seed in range(150)] + [changed(seed, seed % 6) for seed in range(150)]
    segment = Segment.of(sketch(texts[:150], [True] * 150))
    found = segment.near(sketch(texts[150:], [True] * 150), 0.8)
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


def test_a_batch_is_told_from_itself_and_from_history(folder: Path) -> None:
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


def test_what_a_killed_run_left_behind_is_swept_away_and_counts_for_nothing(folder: Path) -> None:
    add(folder, "b1", [text(1)])

    def broken() -> Iterator[tuple[str, bool]]:
        yield from ((text(seed), True) for seed in range(text_history.CHUNK + 1))
        raise RuntimeError("killed")

    files = len(list(folder.glob("*.npy")))
    with pytest.raises(RuntimeError, match="killed"), opened(folder, 10**6) as history:
        history.add("b2", broken(), 0.8)
    assert len(list(folder.glob("*.npy"))) > files
    assert add(folder, "b3", [text(5)]).known == 0
    assert len(list(folder.glob("*.npy"))) == files


def test_small_segments_are_merged_and_still_found(folder: Path) -> None:
    for batch in range(12):
        add(folder, f"b{batch}", [text(100 * batch + n) for n in range(5)])
    with opened(folder, 1_000) as history:
        assert history.examples == 60
        assert len(list(folder.glob("*.bands.npy"))) <= 4
        again = history.add("again", [(text(100 * batch + n), True) for batch in range(12) for n in range(5)], 0.8)
    assert (again.known, again.new_runs) == (60, 0)


def test_the_oldest_are_forgotten(folder: Path) -> None:
    for batch in range(6):
        add(folder, f"b{batch}", [text(100 * batch + n) for n in range(10)], most=20, full=10)
    found = add(folder, "again", [text(100 * batch) for batch in range(6)], most=20, full=10)
    assert found.known == 2


def test_an_empty_batch_is_no_trouble(folder: Path) -> None:
    assert add(folder, "b1", []) == Novelty()
    assert add(folder, "b2", [""]).compared == 1


@given(st.lists(st.text(max_size=30), min_size=1, max_size=6))
def test_any_text_can_be_sketched(texts: list[str]) -> None:
    made = sketch(texts, [True] * len(texts))
    assert made.bands.shape == (len(texts), BANDS)
    assert Segment.of(made).near(made, 0.8).all()


def test_the_manifest_survives_being_read_by_another(folder: Path) -> None:
    add(folder, "b1", [text(1)])
    assert TextHistory(folder, 10).examples == 1


def test_answers_are_kept_of_the_newest_batches_alone(folder: Path) -> None:
    add(folder, "old", [text(1)])
    manifest = folder / "manifest.json"
    told = json.loads(manifest.read_text())
    told["batches"] |= {str(number): told["batches"]["old"] for number in range(text_history.ANSWERS - 1)}
    manifest.write_text(json.dumps(told))
    add(folder, "new", [text(2)])
    kept = list(json.loads(manifest.read_text())["batches"])
    assert (len(kept), kept[0], kept[-1]) == (text_history.ANSWERS, "0", "new")


@pytest.mark.parametrize("file", ["manifest.json", "*.bands.npy"])
@pytest.mark.parametrize("left", [b"", b"\0" * 200, b'{"segments": [', None])
def test_a_history_that_a_power_cut_damaged_begins_anew(tmp_path: Path, file: str, left: bytes | None) -> None:
    texts = [(text(seed), True) for seed in range(20)]
    with opened(tmp_path, most=1_000) as history:
        history.add("first", texts, 0.8)
    (damaged,) = tmp_path.glob(file)
    if left is None:
        damaged.unlink()
    else:
        damaged.write_bytes(left)
    for _ in range(2):
        with opened(tmp_path, most=1_000) as history:
            assert history.add("second", texts, 0.8).known == 0
    with opened(tmp_path, most=1_000) as history:
        assert history.add("third", texts, 0.8).known == 20
