"""Which files of a hub's data set hold the rows, and reading them from the hub's cache."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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


FILES = {
    "README.md": b"---\nconfigs:\n- config_name: all\n  data_files:\n  - split: train\n    path: rows/*\n---\n",
    "rows/a.jsonl": b'{"question": "1+1=", "answer": "2"}\n',
    "rows/b.jsonl": b'{"question": "1+2=", "answer": "3"}\n',
    "more/c.jsonl": b'{"question": "1+3=", "answer": "4"}\n',
}


class SmallHub(BaseHTTPRequestHandler):
    """Lists and serves the files of one data set, as far as a download asks."""

    def do_GET(self) -> None:
        if self.path.startswith("/api/datasets/org/sums/tree/main"):
            listed = [{"type": "file", "path": name, "oid": "0", "size": len(FILES[name])} for name in FILES]
            self._send(json.dumps(listed).encode())
        else:
            self._send(FILES.get(self.path.removeprefix("/datasets/org/sums/resolve/main/").partition("?")[0]))

    do_HEAD = do_GET

    def _send(self, content: bytes | None) -> None:
        self.send_response(404 if content is None else 200)
        for name, value in {"X-Repo-Commit": "1" * 40, "ETag": f'"{hash(content)}"'}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content or b"")

    def log_message(self, *_: object) -> None:
        pass


def test_online_the_files_of_the_split_are_downloaded_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), SmallHub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    try:
        assert [row.place for row in open_rows("hf:org/sums")] == ["rows/a.jsonl:1", "rows/b.jsonl:1"]
        with pytest.raises(DataError, match=r"no split 'test'; there are train"):
            list(open_rows("hf:org/sums@test"))
        with pytest.raises(DataError, match=r"hf:org/other cannot be had from the hub"):
            list(open_rows("hf:org/other"))
    finally:
        server.shutdown()
        server.server_close()
    assert {path.name for path in tmp_path.rglob("*.jsonl")} == {"a.jsonl", "b.jsonl"}


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
