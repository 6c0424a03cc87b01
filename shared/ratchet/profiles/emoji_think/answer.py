"""An answer with its marks on, and off."""

from __future__ import annotations

import re

from ratchet.profiles.emoji_think.marks import STOP, THINK, Mark

_TAGS = re.compile(r"</?think>")
_PREFIX = re.compile(rf"{THINK.run}\n")
_SUFFIX = re.compile(rf"\n{STOP.run}\Z")


def dressed(text: str, think: Mark, stop: Mark) -> str:
    """The answer between these marks; marks that it has already are replaced, never doubled."""
    return f"{think.text}\n{bare(text)}\n{stop.text}"


def bare(text: str) -> str:
    """The answer without marks, ``<think>`` tags (what stands in them stays) and outer white space.

    A mark is a line of its own, first or last, with one emoji of the pool at least twice, whatever the count
    that was asked for: an emoji in the answer's own words is left alone.
    """
    text = _untagged(text).strip()
    text = _PREFIX.sub("", text, count=1) if _PREFIX.match(text) else text
    return _SUFFIX.sub("", text).strip()


def _untagged(text: str) -> str:
    while _TAGS.search(text):
        text = _TAGS.sub("", text)
    return text
