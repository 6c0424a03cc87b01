from __future__ import annotations

import json
import logging

from hypothesis import given, settings
from hypothesis import strategies as st
from ratchet.logs import JsonLines, log_context


def line(level: int, message: str, *arguments: object, error: BaseException | None = None) -> dict[str, object]:
    info = (type(error), error, error.__traceback__) if error else None
    record = logging.LogRecord("ratchet.toys", level, __file__, 1, message, arguments, info)
    parsed: dict[str, object] = json.loads(JsonLines("toys@here+0").format(record))
    return parsed


def test_a_log_line_has_time_worker_and_message() -> None:
    found = line(logging.WARNING, "lost %s", "toy 1")
    assert (found["level"], found["worker"], found["logger"]) == ("warning", "toys@here+0", "ratchet.toys")
    assert found["message"] == "lost toy 1"
    assert isinstance(found["at"], float)
    assert str(found["time"]).endswith("Z")


def test_a_log_line_has_the_ids_of_its_threads_work() -> None:
    with log_context(event="e1", subject="toy 1", claim=7):
        found = line(logging.INFO, "on it")
    assert (found["event"], found["subject"], found["claim"]) == ("e1", "toy 1", 7)
    assert "event" not in line(logging.INFO, "idle")


def test_an_error_brings_its_traceback_in_one_line() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError as error:
        found = line(logging.ERROR, "failed", error=error)
    assert "ValueError: two" in str(found["traceback"])


@settings(max_examples=50)
@given(st.text(st.one_of(st.sampled_from("\0\ud83d\u2028\u2029\x85\x0b\x0c\r\n"), st.characters())))
def test_any_text_is_logged_on_one_line(text: str) -> None:
    record = logging.LogRecord("ratchet.toys", logging.INFO, __file__, 1, "%s", (text,), None)
    written = JsonLines("toys@here+0").format(record)
    assert len(written.encode().splitlines()) == len(written.splitlines()) == 1
    assert json.loads(written)["message"] == text
