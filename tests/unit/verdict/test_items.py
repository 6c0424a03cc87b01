from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ratchet.data.column_map import ColumnMap
from ratchet.errors import DataError
from ratchet.tasks import registry
from ratchet.tasks.family import to_example
from ratchet.user_tasks.add import Choice
from ratchet.verdict.items import read_items

TEXT = "A gull that has learnt to open bins teaches it to the whole harbour within a year, and nobody sleeps there."


def write(file: Path, *rows: Any) -> str:
    file.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return str(file)


def sums(count: int) -> list[dict[str, str]]:
    return [{"question": f"{n} + 1 =", "answer": str(n + 1)} for n in range(count)]


def test_each_file_is_a_task_with_the_metric_of_its_rows(tmp_path: Path) -> None:
    checked = write(tmp_path / "Menus 2.jsonl", *sums(4))
    free = write(tmp_path / "notes.jsonl", *({"question": f"gulls {n}?", "answer": f"{TEXT} {n}"} for n in range(3)))
    found = read_items([checked, free], Choice())
    assert [(item.family, item.metadata.get("metric")) for item in found.items] == [
        *[("menus-2", None)] * 4,
        *[("notes", "loss")] * 3,
    ]
    assert "menus-2: 4 items measured by accuracy" in found.notes[0]
    assert "notes: 3 items measured by loss" in found.notes[1]


def test_metric_grader_and_columns_may_be_chosen(tmp_path: Path) -> None:
    file = write(tmp_path / "menus.jsonl", *({"Frage": f"{n}?", "Antwort": str(n)} for n in range(3)))
    columns = ColumnMap.parse("question=Frage,answer=Antwort")
    found = read_items([file], Choice(grader="exact"), columns)
    assert {item.metadata["grader"] for item in found.items} == {"exact"}
    assert read_items([file], Choice(metric="loss"), columns).items[0].metadata["metric"] == "loss"


def test_a_row_that_cannot_be_read_is_named_and_no_shorter_suite_is_judged_in_its_place(tmp_path: Path) -> None:
    file = write(tmp_path / "menus.jsonl", *sums(3), '{"question": "torn', *sums(2))
    with pytest.raises(DataError, match=r"menus\.jsonl:4: "):
        read_items([file], Choice())


def test_rows_that_ask_the_same_count_once(tmp_path: Path) -> None:
    file = write(tmp_path / "menus.jsonl", *sums(3), *sums(2), {"question": "0 + 1  =", "answer": "1"})
    found = read_items([file], Choice())
    assert len(found.items) == 3
    assert "3 rows ask what an earlier one asks" in found.notes[-1]


def test_items_of_built_in_tasks_keep_their_graders(tmp_path: Path) -> None:
    row = to_example(registry.get("chain_sum").generate(2, 7), "test").to_line()
    found = read_items([write(tmp_path / "mixed.jsonl", row, *sums(2))], Choice())
    assert [item.family for item in found.items] == ["chain_sum", "mixed", "mixed"]


def test_other_content_has_another_digest(tmp_path: Path) -> None:
    first = read_items([write(tmp_path / "menus.jsonl", *sums(3))], Choice())
    again = read_items([write(tmp_path / "menus.jsonl", *sums(3))], Choice())
    more = read_items([write(tmp_path / "menus.jsonl", *sums(4))], Choice())
    assert first.digest == again.digest != more.digest


def test_there_is_no_llm_judge(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no LLM judge"):
        read_items([write(tmp_path / "menus.jsonl", *sums(3))], Choice(metric="judge"))
