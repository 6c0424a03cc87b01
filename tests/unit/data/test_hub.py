"""Which files of a hub's data set hold the rows, and reading them from the hub's cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from ratchet.data.files import open_rows
from ratchet.data.hub import HubName, choose_files
from ratchet.errors import DataError, SettingsError

MATH = ["README.md", "main/train-00000.parquet", "main/test-00000.parquet", "socratic/train-00000.parquet"]
SPLIT = ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/test-00000-of-00001.parquet"]
CARD = {
    "configs": [
        {"config_name": "easy", "data_files": [{"split": "train", "path": "e/*.jsonl"}]},
        {"config_name": "hard", "data_files": "h.csv"},
    ]
}


@pytest.mark.parametrize(
    ("text", "files", "card", "chosen"),
    [
        ("hf:o/n:main", MATH, {}, MATH[1:2]),
        ("hf:o/n:main@test", MATH, {}, MATH[2:3]),
        ("hf:o/n", SPLIT, {}, SPLIT[:2]),
        ("hf:o/n@test", SPLIT, {}, SPLIT[2:]),
        ("hf:o/n", ["rows.jsonl", "README.md", "loader.py"], {}, ["rows.jsonl"]),
        ("hf:o/n", ["a_train.json", "a_dev.json"], {}, ["a_train.json"]),
        ("hf:o/n:easy", ["e/x.jsonl", "e/y.jsonl", "h.csv"], CARD, ["e/x.jsonl", "e/y.jsonl"]),
        ("hf:o/n:hard", ["e/x.jsonl", "h.csv"], CARD, ["h.csv"]),
    ],
)
def test_the_files_of_a_split_are_chosen(text: str, files: list[str], card: dict[str, Any], chosen: list[str]) -> None:
    assert choose_files(files, HubName.parse(text), card) == chosen


@pytest.mark.parametrize(
    ("text", "files", "card", "words"),
    [
        ("hf:o/n", MATH, {}, "several configurations; it has main, socratic: name one, as in hf:o/n:main"),
        ("hf:o/n:mine", MATH, {}, "no configuration 'mine'; it has main, socratic"),
        ("hf:o/n", ["e/x.jsonl", "h.csv"], CARD, "several configurations; it has easy, hard"),
        ("hf:o/n@dev", SPLIT, {}, "no split 'dev'; there are test, train"),
        ("hf:o/n", ["README.md", "loader.py"], {}, "has no files with rows"),
    ],
)
def test_what_is_missing_is_said_with_what_there_is(
    text: str, files: list[str], card: dict[str, Any], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        choose_files(files, HubName.parse(text), card)


@pytest.mark.parametrize("text", ["hf:gsm8k", "hf:", "hf:a/b/c", "hf:a/b@", "hf:../../etc"])
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"hf:ORG/NAME"):
        HubName.parse(text)


def test_offline_the_cache_is_read_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repo = tmp_path / "datasets--org--sums"
    snapshot = repo / "snapshots" / ("0" * 40)
    (snapshot / "main").mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("0" * 40)
    (snapshot / "README.md").write_text("---\nlicense: mit\n---\n# Sums\n")
    (snapshot / "main" / "train.jsonl").write_text('{"question": "1+1=", "answer": "2"}\n')
    (snapshot / "main" / "test.jsonl").write_text('{"question": "1+2=", "answer": "3"}\n')
    (row,) = open_rows("hf:org/sums")
    assert (row.place, row.value) == ("main/train.jsonl:1", {"question": "1+1=", "answer": "2"})
    with pytest.raises(DataError, match=r"hf:org/other cannot be had from the hub.*local folder"):
        list(open_rows("hf:org/other"))
