"""What `ratchet ask` prints of an answer."""

from __future__ import annotations

import pytest
from ratchet.cli.serve import _shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("[/INST] 7\n\tand [bold]8[/bold]", "[/INST] 7\n\tand [bold]8[/bold]"),
        ("\x1b[2J\x1b]0;gone\x07", "\\x1b[2J\\x1b]0;gone\\x07"),
        ("7\r8\x00\x85", "7\\r8\\x00\\x85"),
        ("ä 中 \U0001f468\u200d\U0001f469", "ä 中 \U0001f468\u200d\U0001f469"),
    ],
)
def test_control_characters_are_spelt_out_and_everything_else_is_shown_as_it_is(text: str, shown: str) -> None:
    assert _shown(text) == shown
