"""Any text that JSON can carry survives every path: only a line feed ends a line."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ratchet.artifacts import ArtifactStore
from ratchet.data.example import Example, Message
from ratchet.data.jsonl import read_examples
from ratchet.evaluation.preview import Preview, append_previews, read_previews
from ratchet.evaluation.record import records_from_lines, records_to_lines
from ratchet.evaluation.suite import Suite
from ratchet.inference.generator import Decoding
from ratchet.inference.sampling import Prompt
from ratchet.inference.vllm_api import VllmApi
from ratchet.lines import read_lines, split_lines, stream_lines, to_json_line
from ratchet.serving.chat_api import event

from tests.support.home import made_up_answer

ROOT = Path(__file__).parents[2]
BREAKS = "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e\r\n"
TEXTS = st.text(st.one_of(st.sampled_from(BREAKS), st.characters(exclude_categories=["Cs"]), st.sampled_from('ab"\\{')))
IN_A_ROW = TEXTS.filter(lambda text: "\0" not in text)
"""A NUL is refused where a row comes in."""

several = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@several
@given(texts=st.lists(IN_A_ROW, min_size=1, max_size=5), escaped=st.booleans())
def test_rows_survive_the_artifact_store(tmp_path: Path, texts: list[str], escaped: bool) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [{"question": f"{number} {text}", "answer": f"{text}."} for number, text in enumerate(texts)]
    file.write_bytes(b"".join(json.dumps(row, ensure_ascii=escaped).encode() + b"\n" for row in rows))
    examples = [row for _, row in read_examples(file) if isinstance(row, Example)]
    assert [example.answer for example in examples] == [f"{text}." for text in texts]
    store = ArtifactStore(str(tmp_path / "store"))
    artifact = store.publish_lines((example.to_line() for example in examples), "batch", {})
    again = [Example.model_validate_json(line) for line in store.open_lines(artifact.id)]
    assert again == examples
    suite = Suite.of("eval", examples)
    assert Suite.from_lines("eval", split_lines("\n".join(suite.to_lines()) + "\n")) == suite


@several
@given(texts=st.lists(TEXTS, max_size=5))
def test_records_survive_the_artifact_store(tmp_path: Path, texts: list[str]) -> None:
    records = tuple(
        made_up_answer(Example.ask("q", text, key="k", family="f"), True, 0.9).model_copy(update={"extracted": text})
        for text in texts
    )
    file = tmp_path / "items.jsonl"
    file.write_text(records_to_lines(records), encoding="utf-8", newline="\n")
    assert records_from_lines(read_lines(file)) == records
    assert records_from_lines(split_lines(records_to_lines(records))) == records


@several
@given(texts=st.lists(TEXTS, max_size=6), cuts=st.lists(st.integers(1, 7), min_size=1, max_size=4), crlf=st.booleans())
def test_a_stream_is_cut_at_line_feeds_however_it_arrives(texts: list[str], cuts: list[int], crlf: bool) -> None:
    end = "\r\n" if crlf else "\n"
    whole = "".join(json.dumps(text, ensure_ascii=False) + end for text in texts).encode()
    assert [json.loads(line) for line in stream_lines(pieces(whole, cuts))] == texts


@several
@given(text=TEXTS, cuts=st.lists(st.integers(1, 40), min_size=1, max_size=4))
def test_events_of_our_server_and_of_vllm_are_read_whole(text: str, cuts: list[int]) -> None:
    """vLLM does not escape what httpx takes for line ends; our own server does, for clients that split there."""
    choice: dict[str, Any] = {"text": text, "token_ids": [7], "logprobs": {"token_logprobs": [-1.0]}}
    theirs = f"data: {json.dumps({'choices': [choice]}, ensure_ascii=False)}\n\ndata: [DONE]\n\n"
    ours = event({"choices": [choice]})
    assert len(ours.splitlines()) == 2
    for stream in (theirs, ours):
        api = VllmApi("http://vllm", 1.0)
        api._http = httpx.Client(
            base_url="http://vllm",
            transport=httpx.MockTransport(
                lambda _request, sent=stream: httpx.Response(200, content=pieces(sent.encode(), cuts))
            ),
        )
        prompt = Prompt(token_ids=(1,), max_new_tokens=4, decoding=Decoding(), occurrence=0)
        assert [piece.token_ids for piece in api.stream("m", prompt, [])] == [(7,)]


def pieces(whole: bytes, cuts: list[int]) -> Iterator[bytes]:
    place = number = 0
    while place < len(whole):
        size = cuts[number % len(cuts)]
        yield whole[place : place + size]
        place, number = place + size, number + 1


@several
@given(texts=st.lists(TEXTS, min_size=4, max_size=4))
def test_a_journal_that_is_halved_keeps_whole_previews(tmp_path: Path, texts: list[str]) -> None:
    journal = tmp_path / "previews.jsonl"
    journal.unlink(missing_ok=True)
    previews = [preview(text) for text in texts]
    append_previews(journal, previews[:3])
    append_previews(journal, previews[3:], limit_bytes=1)
    assert read_previews(journal, 10) == previews[1:]


def preview(text: str) -> Preview:
    return Preview(
        at=0.0, step=1, backend="b", weights="w", line=1, seen=False, family="f", level=1, question=text, gold=text,
        answer=text, extracted=None, correct=True, error=None, tokens=1, latency_s=0.0,
    )  # fmt: skip


@given(st.recursive(TEXTS, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner)))
def test_a_line_for_any_reader_is_the_same_value_on_one_line(value: Any) -> None:
    line = to_json_line(value)
    assert json.loads(line) == value
    assert len(line.splitlines()) == 1


def test_an_example_of_all_line_breaks_is_one_line() -> None:
    example = Example(messages=(Message(role="user", content=BREAKS),))
    assert split_lines(example.to_line() + "\n") == [example.to_line()]


@pytest.mark.parametrize("folder", ["shared", "services"])
def test_lines_are_cut_in_one_place(folder: str) -> None:
    """``ratchet.lines`` has what to use instead of these."""
    banned = {"splitlines", "iter_lines", "aiter_lines"}
    found = [
        f"{file.relative_to(ROOT)}:{node.lineno}: {node.attr}"
        for file in sorted((ROOT / folder).rglob("*.py"))
        if file != ROOT / "shared" / "ratchet" / "lines.py"
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in banned
    ]
    assert found == []
