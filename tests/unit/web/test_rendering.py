"""Filters of the templates: nothing that comes from outside becomes markup, and times are machine-readable."""

from __future__ import annotations

import pytest
from ratchet.web.rendering import at, browser_json, cell, environment, linked, term
from ratchet.wording import At

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


@pytest.mark.parametrize("render", [linked, cell, lambda text: environment().from_string("{{ x }}").render(x=text)])
def test_hostile_text_stays_text(render: object) -> None:
    shown = str(render(HOSTILE))  # type: ignore[operator]
    assert "<script" not in shown
    assert "<img" not in shown


def test_checkpoints_and_commands_are_marked_up() -> None:
    shown = linked("#7 replaced #5: `ratchet why 7` <b>")
    assert '<a href="/checkpoints/7">#7</a> replaced <a href="/checkpoints/5">#5</a>' in shown
    assert "<code>ratchet why 7</code> &lt;b&gt;" in shown


def test_an_escaped_quote_is_no_link_to_a_checkpoint() -> None:
    assert linked('it\'s "5"') == "it&#39;s &#34;5&#34;"


def test_control_characters_and_turned_text_are_visible() -> None:
    shown = environment().from_string("{{ x | printable }}").render(x="a\x1b[31mb\x00\u202ec\n\td")
    assert shown == "a\\x1b[31mb\\x00\\u202ec\n\td"


def test_times_carry_their_zone() -> None:
    assert at(0.0) == '<time datetime="1970-01-01T00:00:00+00:00" data-style="clock">1970-01-01 00:00:00 UTC</time>'
    assert cell(At(0.0)) == at(0.0)
    assert at(None) == ""


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), float("-inf")])
def test_a_diverged_loss_is_still_json(loss: float) -> None:
    assert browser_json({"loss": loss, "points": [(1, loss), (2, 0.5)]}) == '{"loss":null,"points":[[1,null],[2,0.5]]}'


def test_a_term_has_its_meaning() -> None:
    assert "meant to be live" in term("champion")
    with pytest.raises(KeyError):
        term("no such word")
