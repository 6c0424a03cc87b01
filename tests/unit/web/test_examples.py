"""Examples that are saved from the Playground: none is lost where they cannot be added at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from ratchet.errors import PreconditionFailed
from ratchet.ledger import Ledger
from ratchet.ledger.tables import TaskRow

from tests.support.viewer import Viewer


def test_examples_that_wait_are_kept_until_the_job_that_adds_them_has_begun(
    home: Path, empty_ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are kept for a task to be; meanwhile somebody may begin the task with a file."""
    viewer = Viewer(home, empty_ledger)
    site = viewer.app.state.site
    fields = {"task": "capitals", "answer": "Paris"}
    viewer.post("/playground/examples", {**fields, "question": "The capital of France?"}, status=200)
    with empty_ledger.write() as tx:
        told = {"kind": "user", "metric": "accuracy", "source": "file", "held_out": {}, "rows": 9, "held_rows": 3}
        tx.session.add(TaskRow(name="capitals", **told, created_at=tx.now, updated_at=tx.now))
    begun: list[list[str]] = []

    def start(
        _settings: object, _kind: str, _title: str, arguments: list[str], _facts: object, _subject: object
    ) -> str:
        begun.append(Path(arguments[2]).read_text().splitlines())
        if len(begun) == 1:
            raise PreconditionFailed("4 jobs are running already; wait until one has ended.")
        return "0123456789abcdef"

    monkeypatch.setattr(site.jobs, "start", start)
    second = {**fields, "question": "And its largest city?"}
    assert "running already" in viewer.post("/playground/examples", second, status=409).json()["error"]
    viewer.post("/playground/examples", second, status=200)
    assert [len(rows) for rows in begun] == [2, 2]
    viewer.post("/playground/examples", second, status=200)
    assert len(begun[-1]) == 1, "those that waited are added once"
