"""The drawing fits its terminal, whatever the size, and shows what matters."""

from __future__ import annotations

import dataclasses
import io

import pytest
from ratchet.cli.screen import ChangeLines, Frame, draw
from ratchet.evaluation.record import Rate
from ratchet.ledger import Ledger
from ratchet.settings import Settings
from ratchet.views.reading import read_view
from ratchet.views.view_model import Deployed, Queue, TaskView, Training, View
from rich.console import Console

from tests.support.previews import preview
from tests.support.story import add_verdict, checkpoint_id, write_story


@pytest.fixture
def view(ledger: Ledger) -> View:
    return read_view(ledger, Settings())


def drawn(view: View, width: int, height: int) -> list[str]:
    console = Console(width=width, height=height, record=True, file=io.StringIO(), force_terminal=True)
    console.print(draw(view, Frame(width, height, "5 of 6 cycles  3:07", "Ctrl-C stops")))
    return console.export_text().splitlines()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 30), (140, 40), (250, 80)])
def test_it_fits_the_terminal(view: View, width: int, height: int) -> None:
    lines = drawn(view, width, height)
    assert len(lines) < height
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize("width", [80, 140])
def test_it_shows_queue_training_checkpoints_live_and_events(view: View, width: int) -> None:
    text = "\n".join(drawn(view, width, 40))
    for shown in ("20,800 examples", "3,200 of 8,000", "#3 for 2:2", "5 of 6 cycles", "1 dead letter", "refused"):
        assert shown in text
    assert " 98  94  82  24   4   0" in text
    assert "deployed: +16.7 points" in text
    assert "Ctrl-C stops" in text


def test_levels_become_bars_where_there_is_no_room_for_numbers(view: View) -> None:
    families = ("chain_sum", "reverse", "sort_digits")
    levels = {(family, level): Rate(correct=6 - level, n=5) for family in families for level in range(1, 7)}
    first = dataclasses.replace(view.checkpoints[0], levels=levels)
    crowded = dataclasses.replace(view, checkpoints=(first,))
    narrow = "\n".join(drawn(crowded, 80, 24))
    assert narrow.count("█▆▅▃▂· 50%") == 3
    assert "100  80  60  40  20   0" in "\n".join(drawn(crowded, 140, 40))


def test_a_home_at_its_beginning_can_be_drawn() -> None:
    empty = View(0.0, Queue(0, 10, 20), Training("waiting"), (), None, (), (), {}, 0)
    text = "\n".join(drawn(empty, 80, 24))
    assert "nothing yet" in text
    assert "low: under 10" in text
    assert "waiting for data" in text


def test_tasks_are_told_with_their_pass_and_the_way_out_where_they_are_used_up(view: View) -> None:
    reason = "the last 3 checkpoints were no better. Add rows: `ratchet data add FILE --task menus`."
    tasks = (TaskView("mail", 2.4, "active"), TaskView("menus", 12.0, "used_up", reason))
    text = "\n".join(drawn(dataclasses.replace(view, tasks=tasks), 200, 40))
    assert f"menus is used up: {reason} · mail 2.4 passes" in text
    assert len(drawn(dataclasses.replace(view, tasks=tasks), 80, 24)) <= 24


def test_a_frozen_unproved_unserved_champion_is_marked_as_such(view: View) -> None:
    live = Deployed(desired=2, actual=1, reason="by hand", since_at=view.at, proved=False, frozen_reason="a demo")
    text = "\n".join(drawn(dataclasses.replace(view, live=live), 140, 40))
    for said in ("the server still has #1", "frozen: a demo", "unproved", "going live"):
        assert said in text


def test_previews_show_answers_gold_and_the_last_result(view: View) -> None:
    right, wrong = preview(step=1300), preview(step=1300, answer="no idea", correct=False)
    failed = preview(step=1300, answer="", correct=False, error="format")
    asked = dataclasses.replace(view, previews=(preview(step=1200), right, wrong, failed))
    text = "\n".join(drawn(asked, 140, 40))
    assert "step 1,300: 1 of 3 right · 2 of the last 4" in text
    assert "✓ chain_sum/1  12+7=  →  12+7=19\n" in text.replace(" \n", "\n")
    assert "✗ chain_sum/1  12+7=  →  no idea  not 19" in text
    assert "✗ chain_sum/1  12+7=  →  nothing  not 19 (format)" in text
    assert len(drawn(asked, 80, 24)) < 24
    assert "nothing  not" not in "\n".join(drawn(asked, 80, 24))


def test_without_previews_the_screen_has_no_preview_row(view: View) -> None:
    assert "previews" not in "\n".join(drawn(view, 140, 40))


@pytest.mark.parametrize(("width", "height"), [(80, 24), (140, 40)])
def test_warnings_have_a_row_each_and_the_view_still_fits(view: View, width: int, height: int) -> None:
    warned = dataclasses.replace(view, warnings=tuple(f"the thing {n} is broken: mend it" for n in range(5)))
    lines = drawn(warned, width, height)
    assert len(lines) < height
    first = lines.index(next(line for line in lines if "the thing 0 is broken: mend it" in line))
    assert "the thing 1" in lines[first + 1]
    assert "3 more warnings" in lines[first + 2]
    assert "checkpoints" in lines[first + 3]


def test_a_warning_is_red(view: View) -> None:
    warned = dataclasses.replace(view, warnings=("the disk of /home is full",))
    console = Console(
        width=80, height=24, record=True, file=io.StringIO(), force_terminal=True, color_system="standard"
    )
    console.print(draw(warned, Frame(80, 24)))
    assert "\x1b[1;31m! the disk of /home is full\x1b[0m" in console.export_text(styles=True)


def test_events_are_printed_once_and_in_order(empty_ledger: Ledger) -> None:
    changes, settings = ChangeLines(empty_ledger), Settings()
    with empty_ledger.write() as tx:
        write_story(tx)
    lines = changes.new_lines(read_view(empty_ledger, settings))
    text = "\n".join(lines)
    assert text.index("#1 deployed: +16.7 points") < text.index("#2 refused: no proof of gain")
    assert "accuracy     #5: chain_sum 98 94 82 24 4 0 (% by level)" in text
    assert "gave up #2: ChildFailed: it ran out of memory (`ratchet dead show 1`)" in text
    assert "the queue is low: 9,000 examples, 12,000 wanted" in text
    assert changes.new_lines(read_view(empty_ledger, settings)) == []


def test_a_new_verdict_is_one_new_line(ledger: Ledger) -> None:
    changes, settings = ChangeLines(ledger), Settings()
    changes.new_lines(read_view(ledger, settings))
    with ledger.write() as tx:
        add_verdict(tx, "deployment", checkpoint_id(5), "refused", tx.now)
    (line,) = changes.new_lines(read_view(ledger, settings))
    assert "deployment   #5 refused: no proof of gain" in line


def test_earlier_events_are_not_printed(ledger: Ledger) -> None:
    lines = ChangeLines(ledger).new_lines(read_view(ledger, Settings()))
    assert [line.split()[1] for line in lines] == ["accuracy", "training"]


def test_a_preview_is_printed_once_with_its_wrong_answers(ledger: Ledger) -> None:
    changes, view = ChangeLines(ledger), read_view(ledger, Settings())
    before = dataclasses.replace(view, previews=(preview(step=100, at=1.0),))
    after = dataclasses.replace(
        view,
        previews=(*before.previews, preview(step=200, at=2.0), preview(step=200, at=2.0, answer="9", correct=False)),
    )
    assert "preview" not in "\n".join(changes.new_lines(before))
    told = [line for line in changes.new_lines(after) if "preview" in line]
    assert told[0].endswith("preview      step 200: 1 of 2 right · 2 of the last 3")
    assert told[1].endswith("preview      chain_sum/1  12+7=  →  9  not 19")
    assert changes.new_lines(after) == []


def test_a_warning_is_printed_once_and_again_when_it_returns(ledger: Ledger) -> None:
    changes, view = ChangeLines(ledger), read_view(ledger, Settings())
    full = dataclasses.replace(view, warnings=("the disk of /home is full",))
    worse = dataclasses.replace(view, warnings=("the disk of /home is full", "testing cannot start"))
    changes.new_lines(view)
    assert [line.split(maxsplit=1)[1] for line in changes.new_lines(full)] == ["warning      the disk of /home is full"]
    assert changes.new_lines(full) == []
    assert [line.split(maxsplit=1)[1] for line in changes.new_lines(worse)] == ["warning      testing cannot start"]
    assert changes.new_lines(view) == []
    assert "the disk of /home is full" in changes.new_lines(full)[0]
