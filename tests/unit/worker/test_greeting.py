from __future__ import annotations

from pathlib import Path

from ratchet.settings import Settings
from ratchet.systems import registry
from ratchet.worker.main import greeting


def test_the_first_log_line_names_worker_and_stores_without_passwords() -> None:
    settings = Settings(
        home=Path("/home"),
        ledger={"url": "postgresql+psycopg://ratchet:secret@10.0.0.1:5432/ratchet"},
        artifacts={"url": "s3://ratchet/artifacts"},
    )
    said = greeting(registry.get("regression"), settings)
    assert "ledger at 10.0.0.1:5432, artifacts at s3://ratchet/artifacts; woken by checkpoint.evaluated" in said
    assert "by a sweep every" in said
    assert "secret" not in said


def test_on_one_machine_the_ledger_is_a_file() -> None:
    assert "ledger at /home/ledger.db, artifacts at file:///home/artifacts" in greeting(
        registry.get("regression"), Settings(home=Path("/home"))
    )
