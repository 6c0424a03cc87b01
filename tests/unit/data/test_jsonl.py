from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from ratchet.data.example import Example
from ratchet.data.jsonl import read_examples
from ratchet.errors import DataError, UnknownShape

GOOD = b'{"question": "Q", "answer": "A"}\n'
DATA = Path(__file__).parents[2] / "data"


@pytest.mark.parametrize("name", ["gsm8k_200", "babi_qa1_100", "binary_100", "syllo_easy_50"])
def test_real_rows_all_read_and_round_trip(name: str) -> None:
    read = list(read_examples(DATA / f"{name}.jsonl"))
    assert len(read) == int(name.rpartition("_")[2])
    for _, example in read:
        assert isinstance(example, Example)
        assert Example.model_validate_json(example.to_line()) == example


def test_nested_metadata_survive() -> None:
    _, example = next(iter(read_examples(DATA / "syllo_easy_50.jsonl")))
    assert isinstance(example, Example)
    assert example.metadata["words"][0]["syllables"] == ["sub", "mit", "ted"]
    assert (example.family, example.level) == ("syllo_multimodal", 1)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"{not json}\n", "not JSON"),
        (b"[\n", "one object per line: no array"),
        (b"question,answer\n", "one object per line: no array"),
        (b"\xff\xfe{}\n", "not UTF-8 at byte 0"),
        (b'{"question": "Q\0", "answer": "A"}\n', "NUL"),
        (b'{"question": "Q\\u0000", "answer": "A"}\n', "NUL"),
        (b'{"question": "Q\\\\\\u0000", "answer": "A"}\n', "NUL"),
        (b'{"question": "Q", "answer": "A", "tag\\u0000": 1}\n', "NUL"),
        (b'{"prompt": "Q", "completion": 1e400}\n', "1e400 is too large a number"),
        (b'{"question": "\\ud800", "answer": "A"}\n', "surrogate"),
        (b"[1, 2]\n", "a JSON list, not an object"),
        (b"null\n", "not an object"),
        (b'{"question": "Q", "answer": "A", "score": NaN}\n', "NaN"),
        (b'{"question": "Q", "answer": ' + b"9" * 5000 + b"}\n", "not JSON"),
        (b"[" * 100_000 + b"\n", "not JSON"),
        (b'{"question": "' + b"x" * 3_000_000 + b'", "answer": "A"}\n', "longer than"),
        (b'{"text": "Q"}\n', "keys found: text"),
    ],
)
def test_a_bad_line_is_reported_and_the_next_is_read(tmp_path: Path, line: bytes, words: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(GOOD + line + GOOD)
    (one, first), (two, bad), (three, last) = read_examples(file)
    assert (one, two, three) == (1, 2, 3)
    assert isinstance(first, Example)
    assert isinstance(last, Example)
    assert isinstance(bad, DataError)
    assert words in str(bad)
    assert str(bad).startswith("rows.jsonl:2: ")


@pytest.mark.parametrize(
    ("written", "answer"),
    [
        (b'"As \\\\u0000."', "As \\u0000."),
        (b'"\\\\\\\\u0000"', "\\\\u0000"),
        (b"5", "5"),
        (b"5.0", "5.0"),
        (b"3.10", "3.10"),
        (b"1E3", "1E3"),
        (b"123456789012345678901234567890", "123456789012345678901234567890"),
    ],
)
def test_an_answer_stays_as_it_was_written(tmp_path: Path, written: bytes, answer: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b'{"prompt": "what", "completion": ' + written + b', "weight": 0.5}\n')
    ((_, example),) = read_examples(file)
    assert isinstance(example, Example)
    assert example.answer == answer
    file.write_text(example.to_line())
    ((_, again),) = read_examples(file)
    assert again == example


def test_a_line_that_stands_for_a_refused_row_says_where_and_why(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(GOOD + b'{"refused": "mine.csv:7: answer is null."}\n')
    _, (number, refused) = read_examples(file)
    assert (number, str(refused), type(refused)) == (2, "mine.csv:7: answer is null.", DataError)


def test_an_unknown_shape_keeps_its_class(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b'{"text": "Q"}')
    assert [type(row) for _, row in read_examples(file)] == [UnknownShape]


def test_a_truncated_last_row_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(GOOD + GOOD[:-10])
    (_, first), (number, cut) = read_examples(file)
    assert isinstance(first, Example)
    assert (number, "the file ends within the row" in str(cut)) == (2, True)


def test_a_whole_last_row_needs_no_line_end(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + GOOD + b"\r\n \n" + GOOD[:-1])
    read = list(read_examples(file))
    assert [number for number, _ in read] == [1, 4]
    assert all(isinstance(row, Example) for _, row in read)


def test_memory_does_not_grow_with_a_line(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    with file.open("wb") as out:
        for _ in range(40):
            out.write(b"x" * 1_000_000)
        out.write(b"\n" + GOOD)
    tracemalloc.start()
    try:
        (_, bad), (number, good) = read_examples(file, line_limit_bytes=100_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(bad, DataError)
    assert isinstance(good, Example)
    assert number == 2
    assert peak < 2_000_000
