"""Where there is no terminal: one line a change, and none twice."""

from __future__ import annotations

import dataclasses

from ratchet.cli.view.reading import read_view
from ratchet.cli.view.screen import Teller
from ratchet.ledger import Ledger
from ratchet.settings import Settings

from tests.support.previews import preview
from tests.support.story import add_verdict, checkpoint_id, write_story


def test_what_happens_is_told_once_and_in_order(empty_ledger: Ledger) -> None:
    teller, settings = Teller(empty_ledger), Settings()
    with empty_ledger.write() as tx:
        write_story(tx)
    lines = teller.tell(read_view(empty_ledger, settings))
    text = "\n".join(lines)
    assert text.index("#1 deployed: +16.7 points") < text.index("#2 refused: no proof of gain")
    assert "accuracy     #5: chain_sum 98 94 82 24 4 0 (% by level)" in text
    assert "gave up #2: ChildFailed: it ran out of memory (`ratchet dead show 1`)" in text
    assert "the queue is low: 9,000 examples, 12,000 wanted" in text
    assert teller.tell(read_view(empty_ledger, settings)) == []


def test_a_new_verdict_is_one_new_line(ledger: Ledger) -> None:
    teller, settings = Teller(ledger), Settings()
    teller.tell(read_view(ledger, settings))
    with ledger.write() as tx:
        add_verdict(tx, "deployment", checkpoint_id(5), "refused", tx.now)
    (line,) = teller.tell(read_view(ledger, settings))
    assert "deployment   #5 refused: no proof of gain" in line


def test_what_was_there_before_is_not_told(ledger: Ledger) -> None:
    lines = Teller(ledger).tell(read_view(ledger, Settings()))
    assert [line.split()[1] for line in lines] == ["accuracy", "training"]


def test_a_preview_is_told_once_with_what_was_wrong(ledger: Ledger) -> None:
    teller, scene = Teller(ledger), read_view(ledger, Settings())
    before = dataclasses.replace(scene, previews=(preview(step=100, at=1.0),))
    after = dataclasses.replace(
        scene,
        previews=(*before.previews, preview(step=200, at=2.0), preview(step=200, at=2.0, answer="9", correct=False)),
    )
    assert "preview" not in "\n".join(teller.tell(before))
    told = [line for line in teller.tell(after) if "preview" in line]
    assert told[0].endswith("preview      step 200: 1 of 2 right · 2 of the last 3")
    assert told[1].endswith("preview      chain_sum/1  12+7=  →  9  not 19")
    assert teller.tell(after) == []


def test_a_warning_is_told_once_and_again_when_it_comes_back(ledger: Ledger) -> None:
    teller, scene = Teller(ledger), read_view(ledger, Settings())
    full = dataclasses.replace(scene, warnings=("the disk of /home is full",))
    worse = dataclasses.replace(scene, warnings=("the disk of /home is full", "testing cannot start"))
    teller.tell(scene)
    assert [line.split(maxsplit=1)[1] for line in teller.tell(full)] == ["warning      the disk of /home is full"]
    assert teller.tell(full) == []
    assert [line.split(maxsplit=1)[1] for line in teller.tell(worse)] == ["warning      testing cannot start"]
    assert teller.tell(scene) == []
    assert "the disk of /home is full" in teller.tell(full)[0]
