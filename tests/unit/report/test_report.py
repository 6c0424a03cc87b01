"""The page: complete, self-contained, true to the ledger, and readable from the first checkpoint on."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from ratchet.ledger import Ledger
from ratchet.ledger.migrate import migrate
from ratchet.ledger.tables import Batch, Checkpoint
from ratchet.report.facts import Facts
from ratchet.report.learning import learning_curves
from ratchet.report.page import render, write
from ratchet.report.reading import cells, read_facts
from ratchet.settings import Settings
from ratchet.testing.story import write_fork, write_story


@pytest.fixture
def facts(tmp_path: Path) -> Facts:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    migrate(ledger)
    with ledger.write() as tx:
        write_story(tx)
    found = read_facts(ledger, Settings(home=tmp_path))
    ledger.close()
    return found


@pytest.fixture
def empty(tmp_path: Path) -> Facts:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    migrate(ledger)
    found = read_facts(ledger, Settings(home=tmp_path))
    ledger.close()
    return found


def test_every_judged_checkpoint_is_on_it(facts: Facts) -> None:
    page = render(facts)
    for look in facts.judged:
        assert f"<td>#{look.ordinal}</td>" in page
        assert look.overall is not None
        assert f"{100 * look.overall.value:.1f} %" in page


def test_every_deployment_is_on_it_with_its_reason(facts: Facts) -> None:
    page = render(facts)
    assert facts.changes
    for change in facts.changes:
        assert f"#{change.ordinal} over #{change.previous}" in page
        assert change.reason in page


def test_forks_are_on_it_with_arms_tokens_scores_and_decision(facts: Facts, tmp_path: Path) -> None:
    assert "challenger" not in render(facts)
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    with ledger.write() as tx:
        write_fork(tx)
    page = render(read_facts(ledger, Settings(home=tmp_path)))
    ledger.close()
    assert "mixed #4:" in page
    assert "adaptive #5:" in page
    for cell in ("+5.0 (+1.8 to +8.5)", "0.004", ">decided for adaptive<"):
        assert cell in page


def test_it_needs_nothing_else(facts: Facts) -> None:
    page = render(facts)
    for asks_for in ("<script", "<link", "src=", "@import", "url(http"):
        assert asks_for not in page


def test_it_has_a_dark_look_and_figures_that_can_be_read_on_a_phone(facts: Facts) -> None:
    page = render(facts)
    light, dark = (dict(re.findall(r"--(\w+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\}", page))
    assert light.keys() == dark.keys()
    assert all(light[name] != dark[name] for name in light)
    assert re.search(r"@media screen and \(prefers-color-scheme: dark\)", page)
    assert re.search(r"@media \(max-width: \d+px\) .*\.figure svg \{ min-width: \d+px", page)


def test_what_the_ledger_holds_is_escaped(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    migrate(ledger)
    with ledger.write() as tx:
        write_story(tx)
        tx.session.query(Batch).first().report = {"reasons": {"<b>bold</b>": 3}}  # type: ignore[union-attr]
    page = render(read_facts(ledger, Settings(home=tmp_path, model={"path": "<script>alert(1)</script>"})))
    ledger.close()
    assert "<script>" not in page
    assert "<b>bold" not in page
    assert "3 &lt;b&gt;bold" in page


def test_a_home_without_checkpoints_has_a_page_that_says_so(empty: Facts) -> None:
    page = render(empty)
    assert "No checkpoint has been judged yet." in page
    assert "<svg" not in page


def test_figures_are_well_formed_and_speak(facts: Facts) -> None:
    svg = learning_curves(facts)
    assert svg is not None
    root = ElementTree.fromstring(svg)
    assert root.attrib["role"] == "img"
    texts = {"".join(node.itertext()).strip() for node in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {*facts.families, "level 1", "training step"} <= texts


def test_the_same_facts_make_the_same_page(facts: Facts) -> None:
    assert render(facts) == render(facts)


def test_it_is_written_where_it_is_wanted(facts: Facts, tmp_path: Path) -> None:
    write(facts, tmp_path / "new" / "page.html")
    assert (tmp_path / "new" / "page.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_checkpoint_that_nobody_tested_is_left_out(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    migrate(ledger)
    with ledger.write() as tx:
        write_story(tx)
        newest = tx.session.query(Checkpoint).count() - 1
    found = read_facts(ledger, Settings(home=tmp_path))
    ledger.close()
    untested = {look.ordinal for look in found.checkpoints} - {look.ordinal for look in found.judged}
    assert all(f"<td>#{ordinal}</td>" not in render(found) for ordinal in untested)
    assert newest in {look.ordinal for look in found.checkpoints}


def test_names_of_other_shapes_are_no_cells() -> None:
    assert cells({"chain_sum/2": 3, "user rows": 5, "a/b/4": 1}) == {("chain_sum", 2): 3, ("a/b", 4): 1}


def test_the_experiment_shows_the_arms_that_were_tried(facts: Facts) -> None:
    assert facts.arms
    assert all(arm.trials and arm.low <= arm.points <= arm.high for arm in facts.arms)
    page = render(facts)
    assert all(f"{arm.name} ({arm.trials} trials" in page for arm in facts.arms)
