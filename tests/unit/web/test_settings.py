"""The page Settings: values, defaults and origins, also of a page that `ratchet run` has started."""

from __future__ import annotations

from pathlib import Path

import pytest
from ratchet.ledger import Ledger
from ratchet.ledger.tables import LockedSettingRow
from ratchet.settings import load
from ratchet.settings.origins import OPTION, Origins, hand_over, line_of, origins_of
from ratchet.settings.section import environment

from tests.support.viewer import Viewer

TOML = """
# a comment
[queue]
low_water = 500
high_water = 900

[ledger]
url = "postgresql://me:hunter2@db/ratchet"  # secret

[web]
links = { Grafana = "http://admin:hunter3@hub:3000" }
"""


def test_lines_of_a_file_are_found() -> None:
    assert [line_of(TOML, name) for name in ("queue.low_water", "queue.high_water", "web.links.Grafana")] == [4, 5, 11]
    assert line_of(TOML, "queue.batch_examples") is None
    assert line_of('model.path = "x"', "model.path") == 1


@pytest.fixture
def set_up(home: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Viewer:
    """Settings of a file and the environment, in this folder. The viewer's ledger is not the one that they name."""
    Path("ratchet.toml").write_text(TOML)
    monkeypatch.setenv("RATCHET_QUEUE__BATCH_EXAMPLES", "123")
    return Viewer(home, ledger, load())


def row(text: str, name: str) -> str:
    return text.partition(f"<code>{name}</code>")[2].partition("</tr>")[0]


def test_values_come_with_their_origin(set_up: Viewer) -> None:
    text = set_up.get("/settings")
    assert "ratchet.toml, line 4" in row(text, "queue.low_water")
    assert "RATCHET_QUEUE__BATCH_EXAMPLES" in row(text, "queue.batch_examples")
    assert "default" in row(text, "queue.epoch_cap")
    assert "Depth below which generation starts." in row(text, "queue.low_water")


def test_secrets_are_masked(set_up: Viewer) -> None:
    text = set_up.get("/settings").partition("<footer")[0]  # where the link itself is, as it was set
    assert "hunter" not in text
    assert "secret" in row(text, "ledger.url")
    assert "**********" in row(text, "ledger.url")
    assert "http://admin:**********@hub:3000" in row(text, "web.links")


def test_it_is_searched_and_reduced_to_what_is_changed(set_up: Viewer) -> None:
    found = set_up.get("/settings?q=LOW+water")
    assert "queue.low_water" in found
    assert "queue.epoch_cap" not in found
    changed = set_up.get("/settings?changed=1")
    assert "queue.low_water" in changed
    assert "queue.epoch_cap" not in changed
    assert "No setting matches" in set_up.get("/settings?q=xyzzy")


def test_locked_settings_are_marked(set_up: Viewer, ledger: Ledger) -> None:
    with ledger.write() as tx:
        tx.session.add_all(
            LockedSettingRow(name=name, value="77", locked_at=tx.now) for name in ("suites.seed", "vocab_size")
        )
    text = set_up.get("/settings")
    assert "Locked by the first run: 77" in row(text, "suites.seed")
    assert "Locked by the first run: 77" in row(text, "locked.vocab_size")
    assert "Locked" not in row(text, "queue.low_water")


def test_what_a_restart_would_change_is_said(set_up: Viewer) -> None:
    Path("ratchet.toml").write_text(TOML.replace("500", "600"))
    text = set_up.get("/settings")
    assert "1 value differs" in text
    assert "after a restart: <code>600</code>" in row(text, "queue.low_water")
    Path("ratchet.toml").write_text("[queue\n")
    assert "cannot be read again" in set_up.get("/settings")


def test_options_of_the_command_are_no_pending_change(set_up: Viewer) -> None:
    found = origins_of(
        set_up.settings.model_copy(update={"web": set_up.settings.web.model_copy(update={"port": 8123})}),
        set_up.settings.web_home,
    )
    assert found.by_name["web.port"] == OPTION
    assert found.pending == {}


def test_a_page_that_a_run_has_started_knows_where_the_run_had_them_from(
    set_up: Viewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = set_up.settings
    hand_over(settings, settings.web_home)
    for name, value in environment(settings).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("RATCHET_QUEUE__BATCH_EXAMPLES")
    assert load() == settings
    found = origins_of(settings, settings.web_home).by_name
    assert found["queue.low_water"] == "ratchet.toml, line 4"
    assert found["queue.batch_examples"] == "RATCHET_QUEUE__BATCH_EXAMPLES"
    assert "queue.epoch_cap" not in found
    other = settings.model_copy(update={"queue": settings.queue.model_copy(update={"low_water": 7})})
    assert origins_of(other, settings.web_home).by_name == {}, "they are of a run with other settings"
    assert "without their origins" in origins_of(other, settings.web_home).note


def test_what_is_handed_over_holds_no_secret_and_is_only_about_settings_in_force(set_up: Viewer) -> None:
    settings = set_up.settings
    hand_over(settings, settings.web_home)
    (file,) = settings.web_home.glob("origins.json")
    assert "hunter" not in file.read_text()
    hand_over(settings.model_copy(update={"home": settings.home / "other"}), settings.web_home)
    assert not file.exists()


def test_defaults_have_no_origin(home: Path, ledger: Ledger) -> None:
    assert isinstance(origins_of(load(), home), Origins)
    assert {*origins_of(load(), home).by_name} == {"home"}
