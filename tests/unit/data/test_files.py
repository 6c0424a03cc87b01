"""Files of every kind are read as the same rows, and a file of another kind is one sentence."""

from __future__ import annotations

import csv
import datetime
import gzip
import io
import json
import os
import pickle
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import feather, ipc, parquet
from ratchet.data.column_map import ColumnMap
from ratchet.data.example import Example
from ratchet.data.files import HOPELESS_ROWS, Conversion, convert, open_rows, read_file_examples
from ratchet.data.jsonl import read_examples
from ratchet.errors import DataError, UnknownShape
from ratchet.user_files import open_regular

ROWS: list[dict[str, Any]] = [
    {"question": "1,5 + 1?", "answer": "2,5", "note": 'say "ok"'},
    {"question": "Two\nlines?", "answer": "Yes.\u2028No.", "note": ""},
    {"question": "Größe?", "answer": "a\x85\x0cb", "note": "=1+1"},
]


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def separated(rows: list[dict[str, Any]], delimiter: str) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def arrow_table(write: Callable[[pa.Table, io.BytesIO], object]) -> bytes:
    out = io.BytesIO()
    write(pa.Table.from_pylist(ROWS), out)
    return out.getvalue()


def arrow_stream(table: pa.Table, out: io.BytesIO) -> None:
    with ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


def converted(file: Path, destination: Path) -> Conversion:
    with open_regular(file) as opened:
        return convert(opened, file.name, destination)


WHOLE = jsonl(ROWS)
PARQUET = arrow_table(parquet.write_table)
FILES: dict[str, bytes] = {
    "rows.jsonl": WHOLE,
    "rows.JSONL": WHOLE,
    "rows.ndjson": WHOLE,
    "rows": WHOLE,
    "bom.jsonl": b"\xef\xbb\xbf" + WHOLE,
    "crlf.jsonl": WHOLE.replace(b"\n", b"\r\n"),
    "no-end.jsonl": WHOLE[:-1],
    "array.json": json.dumps(ROWS, indent=1).encode(),
    "array.jsonl": json.dumps(ROWS, ensure_ascii=False).encode(),
    "under-a-key.json": json.dumps({"version": 1, "data": ROWS}).encode(),
    "under-a-key-indented.json": json.dumps({"rows": ROWS, "more": []}, indent=2).encode(),
    "one-after-the-other.json": "\n".join(json.dumps(row, indent=1) for row in ROWS).encode(),
    "lines.json": WHOLE,
    "rows.csv": separated(ROWS, ","),
    "semicolons.csv": separated(ROWS, ";"),
    "bom.csv": b"\xef\xbb\xbf" + separated(ROWS, ","),
    "rows.tsv": separated(ROWS, "\t"),
    "utf-16.tsv": separated(ROWS, "\t").decode().encode("utf-16"),
    "utf-16-be.jsonl": b"\xfe\xff" + WHOLE.decode().encode("utf-16-be"),
    "rows.parquet": PARQUET,
    "rows.feather": arrow_table(lambda table, out: feather.write_feather(table, out)),
    "rows.arrow": arrow_table(arrow_stream),
    "rows.jsonl.gz": gzip.compress(WHOLE),
    "rows.csv.gz": gzip.compress(separated(ROWS, ",")),
    "rows.parquet.gz": gzip.compress(PARQUET),
    "rows.jsonl.zst": pa.compress(WHOLE, "zstd", asbytes=True),
    "renamed.bin": gzip.compress(PARQUET),
}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_bytes(FILES[name])
    assert [row.value for row in open_rows(file)] == ROWS
    examples = [row.value for row in read_file_examples(str(file))]
    assert [(each.question, each.answer) for each in examples if isinstance(each, Example)] == [
        (row["question"], row["answer"]) for row in ROWS
    ]
    copy = tmp_path / "copy"
    conversion = converted(file, copy)
    assert (conversion.rows, conversion.unreadable) == (3, 0)
    assert [row for _, row in read_examples(copy)] == examples


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("rows.jsonl", WHOLE)
    return out.getvalue()


OTHERS: dict[str, tuple[bytes, str]] = {
    "latin-1.jsonl": (WHOLE.decode().replace("\u2028", "").encode("latin-1"), "latin-1.jsonl:3: not UTF-8.*iconv"),
    "latin-1.csv": (b"question,answer\nGr\xf6\xdfe?,ja\n", "latin-1.csv:2: not UTF-8"),
    "utf-16.jsonl": (WHOLE.decode().encode("utf-16-le"), "UTF-16 without a mark"),
    "utf-32.jsonl": (WHOLE.decode().encode("utf-32"), "UTF-32"),
    "old-mac.jsonl": (WHOLE.replace(b"\n", b"\r"), "end with carriage returns alone.*tr"),
    "table.jsonl": (separated(ROWS, ","), r"looks like CSV or TSV: let its name end with \.csv"),
    "book.csv": (zipped(), "a ZIP archive or an Excel workbook"),
    "rows.jsonl": (pickle.dumps(ROWS), "a pickle"),
    "picture.jsonl": (b"\x89PNG\r\n\x1a\n" + bytes(200), "a picture"),
    "binary.jsonl": (bytes(range(256)) * 40, "binary data"),
    "page.json": (b"<!DOCTYPE html><html></html>", "a web page"),
    "lfs.parquet": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
    "text.jsonl": (b"Once upon a time\nthere was.\n", "no file of rows, it begins with 'Once upon"),
    "empty.jsonl": (b"", "is empty"),
    "blank.csv": (b"\n \n", "is empty"),
    "columns.json": (b'{"question": ["a", "b"], "answer": ["c", "d"]}', "lists its columns.*orient='records'"),
    "pandas.json": (b'{"question": {"0": "a"}, "answer": {"0": "c"}}', "lists its columns"),
    "no-rows.json": (b'{"data": []}', "its array is empty"),
    "cut.json": (json.dumps(ROWS).encode()[:-30], "row 3 is not JSON"),
    "more.json": (b'{"question": "Q", "answer": "A"} more', "'more' follows its end"),
    "unclosed.json": (json.dumps(ROWS).encode()[:-1], "']' is missing|',' is missing after row 3"),
    "cut.jsonl.gz": (gzip.compress(WHOLE)[:-20], "is damaged, and cannot be unpacked"),
    "cut.jsonl.zst": (pa.compress(WHOLE, "zstd", asbytes=True)[:-20], "is damaged|cannot be read"),
    "cut.parquet": (PARQUET[:-50], "damaged Parquet"),
    "one-column.csv": (b"text\nabc\n", "only the columns"),
    "twice.csv": (b"question,question,answer\na,b,c\n", "names column 'question' twice"),
    "quotes.csv": (b'question,answer\n"a,b\nc,d\n', "not CSV"),
    "shape.jsonl": (jsonl([{"words": "x", "meaning": 1}] * 200), f"first {HOPELESS_ROWS} rows none can be read"),
    "pairs.jsonl": (jsonl([{"prompt": "x", "chosen": "a", "rejected": "b"}] * 9), "of 9 rows none.*preference pairs"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_file_of_another_kind_is_refused_in_one_sentence(tmp_path: Path, name: str) -> None:
    content, words = OTHERS[name]
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(DataError, match=words) as error:
        list(read_file_examples(file))
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_bad_rows_are_named_by_line_and_the_others_are_read(tmp_path: Path) -> None:
    good = jsonl(ROWS[:1])
    file = tmp_path / "mine.jsonl"
    bad = b'{"half": \n\n[1]\n{"question": "\\ud800", "answer": "A"}\n{"question": "Q", "answer": ""}\n'
    file.write_bytes(good + bad + good)
    read = {row.number: row.value for row in read_file_examples(file)}
    assert [number for number, value in read.items() if isinstance(value, Example)] == [1, 7]
    assert str(read[2]).startswith("mine.jsonl:2: not JSON")
    assert str(read[4]).startswith("mine.jsonl:4: a JSON list")
    assert "mine.jsonl:5: contains an unpaired surrogate" in str(read[5])
    assert str(read[6]).startswith("mine.jsonl:6: ")


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e400", "-1e400"])
@pytest.mark.parametrize("place", ['"answer": {}', '"answer": "A", "scores": [1.5, {}]'])
@pytest.mark.parametrize("form", ["[{}, {}, {}]", '{{"rows": [{}, {}, {}]}}', "{}\n{}\n{}"])
def test_a_number_that_is_none_costs_its_row_and_not_the_file(
    tmp_path: Path, number: str, place: str, form: str
) -> None:
    good, bad = json.dumps(ROWS[0]), '{"question": "Q", ' + place.format(number) + "}"
    file = tmp_path / "rows.json"
    file.write_text(form.format(good, bad, good))
    one, two, three = (row.value for row in read_file_examples(file))
    assert one == three
    assert str(two).startswith("rows.json:2: ")
    assert number in str(two) or "contains NaN, an infinity or a number that is too large" in str(two)


def test_a_conversion_keeps_line_numbers_and_refused_rows(tmp_path: Path) -> None:
    file, copy = tmp_path / "mine.csv", tmp_path / "rows.jsonl"
    file.write_text('question,answer\n"two\nlines",A\nQ,\nQ\nlast,B\n')
    conversion = converted(file, copy)
    assert (conversion.rows, conversion.unreadable) == (4, 2)
    assert [line for line, _ in conversion.refused] == [4, 5]
    gate = list(read_examples(copy))
    assert [number for number, _ in gate] == [2, 4, 5, 6]
    assert [str(row) for _, row in gate if isinstance(row, DataError)] == [reason for _, reason in conversion.refused]
    assert conversion.refused[1][1] == "mine.csv:5: has 1 cells, where the header has 2."


def test_values_of_tables_become_json(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    call = {"id": "1", "type": "function", "function": {"name": "now", "arguments": "{}"}}
    turns = [
        {"role": "user", "content": "Q", "tool_calls": None},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "assistant", "content": "A", "tool_calls": None},
    ]
    row = {"messages": turns, "when": datetime.date(2020, 1, 2), "score": float("nan"), "raw": b"abc", "system": None}
    parquet.write_table(pa.Table.from_pylist([row]), file)
    ((example),) = [each.value for each in read_file_examples(file)]
    assert isinstance(example, Example)
    assert [turn.content for turn in example.messages] == ["Q", "", "A"]
    assert example.messages[1].tool_calls == (call,)
    kept = {key: example.metadata[key] for key in ("when", "score", "raw")}
    assert kept == {"when": "2020-01-02", "score": None, "raw": "abc"}


def test_a_column_of_pictures_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    rows = [{"question": "Q", "answer": "A", "photo": {"bytes": b"\x89PNG\xff"}}] * 3
    parquet.write_table(pa.Table.from_pylist(rows), file)
    with pytest.raises(DataError, match=r"rows.parquet: of 3 rows none can be read.*column photo holds binary data"):
        list(read_file_examples(file))


def test_a_folder_gives_its_files_in_order_and_says_what_it_ignores(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_bytes(jsonl(ROWS[1:2]))
    (tmp_path / "a.csv").write_bytes(separated(ROWS[:1], ","))
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "c.parquet").write_bytes(PARQUET)
    (tmp_path / "README.md").write_text("about")
    (tmp_path / ".hidden.jsonl").write_text("x")
    os.mkfifo(tmp_path / "pipe.jsonl")
    said: list[str] = []
    rows = list(open_rows(tmp_path, said.append))
    assert [row.place for row in rows] == [
        "a.csv:2", "b.jsonl:1", "more/c.parquet:1", "more/c.parquet:2", "more/c.parquet:3",
    ]  # fmt: skip
    assert [sentence.split()[0] for sentence in said] == ["README.md", "pipe.jsonl"]


def test_a_folder_with_a_training_split_leaves_the_others_out(tmp_path: Path) -> None:
    for name in ("train-00000-of-00001.jsonl", "test-00000-of-00001.jsonl", "extra.jsonl"):
        (tmp_path / name).write_bytes(jsonl(ROWS))
    said: list[str] = []
    assert {row.file for row in open_rows(tmp_path, said.append)} == {"extra.jsonl", "train-00000-of-00001.jsonl"}
    assert "the split test" in said[0]


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no file with rows"):
        list(open_rows(tmp_path))


def test_columns_are_mapped_as_told(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("Frage,Antwort,answer\nQ,A,other\n")
    ((example),) = [row.value for row in read_file_examples(file, ColumnMap.parse("question=Frage,answer=Antwort"))]
    assert isinstance(example, Example)
    assert (example.question, example.answer, example.metadata["row"]) == ("Q", "A", {"answer": "other"})
    with pytest.raises(UnknownShape, match=r"no column 'Fragen'. Columns: Frage, Antwort, answer"):
        list(read_file_examples(file, ColumnMap.parse("question=Fragen,answer=Antwort")))


def test_a_file_that_no_shape_fits_is_refused_with_the_mapping_that_would_read_it(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("input_text,target_text\nQ,A\n")
    with pytest.raises(UnknownShape, match="--map question=input_text,answer=target_text"):
        list(read_file_examples(file))


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    rows = [{"question": f"{number} " + "x" * 10_000, "answer": "A"} for number in range(1_000)]
    file.write_bytes(
        {"rows.jsonl": jsonl, "rows.json": lambda rows: json.dumps(rows).encode()}.get(
            name, lambda rows: separated(rows, ",")
        )(rows)
    )
    tracemalloc.start()
    try:
        assert sum(1 for _ in open_rows(file)) == 1_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2_500_000


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(str.strip)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(pairs=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4))
def test_any_text_is_the_same_from_every_kind_of_file(tmp_path: Path, pairs: list[tuple[str, str]]) -> None:
    rows = [{"question": asked, "answer": said} for asked, said in pairs]
    (tmp_path / "a.jsonl").write_bytes(jsonl(rows))
    (tmp_path / "b.json").write_text(json.dumps(rows))
    (tmp_path / "c.csv").write_bytes(separated(rows, ","))
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "d.parquet")
    for name in ("a.jsonl", "b.json", "c.csv", "d.parquet"):
        converted(tmp_path / name, tmp_path / "copy")
        read = [row for _, row in read_examples(tmp_path / "copy") if isinstance(row, Example)]
        assert [(each.question, each.answer) for each in read] == pairs, name
