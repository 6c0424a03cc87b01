from __future__ import annotations

from pathlib import Path

import pytest
from ratchet.settings import Settings, load
from ratchet.settings.section import environment, reveal


@pytest.fixture
def unusual(tmp_path: Path) -> Settings:
    return Settings(
        home=tmp_path,
        serving={"port": 0, "watch_s": 1.5},
        inference={"api_key": "secret"},
        ledger={"url": "postgresql+psycopg://user:word@host/name"},
        suites={"families": [{"name": "reverse", "levels": [1, 3]}]},
        placement={"roles": ["4090"]},
    )


def test_revealed_settings_build_the_same_settings(unusual: Settings) -> None:
    assert Settings(**reveal(unusual)) == unusual


def test_the_same_settings_are_read_from_the_environment(
    unusual: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in environment(unusual).items():
        monkeypatch.setenv(name, value)
    assert load() == unusual
