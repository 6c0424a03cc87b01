"""The environment of the templates: filters for times, numbers, links and terms. All text is escaped.

Answers of models, rows and names of files are hostile input: nothing in them becomes markup. Filters return Markup only
for what they have built from escaped parts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from pydantic_core import to_json

from ratchet.printable import printable_text
from ratchet.views.glossary import MEASURES, TERMS
from ratchet.views.view_model import percent, plain, thousands
from ratchet.wording import At, duration, shortened, size

_NUMBER = re.compile(r"(?<![\w&/])#(\d{1,9})\b")
_CODE = re.compile(r"`([^`\n]{1,200})`")


def environment() -> Environment:
    """The templates of this package."""
    env = Environment(
        loader=PackageLoader("ratchet.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    env.filters |= {
        "at": at,
        "browser_json": browser_json,
        "cell": cell,
        "duration": duration,
        "linked": linked,
        "percent": percent,
        "plain": plain,
        "printable": printable_text,
        "shortened": shortened,
        "size": size,
        "term": term,
        "thousands": thousands,
    }
    env.globals |= {"sorted_by": sorted_by}
    return env


def at(seconds: float | None, style: str = "clock") -> Markup:
    """A time, which the browser shows in the viewer's zone. ``style``: clock, ago (``3 min ago``), for (``3 min``)."""
    if seconds is None:
        return Markup("")
    moment = datetime.fromtimestamp(seconds, UTC)
    shown = moment.strftime("%Y-%m-%d %H:%M:%S UTC")
    return Markup('<time datetime="{}" data-style="{}">{}</time>').format(moment.isoformat(), style, shown)


def linked(text: object) -> Markup:
    """The text with links to the checkpoints it names (``#7``), and with commands in a fixed font."""
    safe = str(escape(printable_text(text)))
    safe = _CODE.sub(r"<code>\1</code>", safe)
    return Markup(_NUMBER.sub(r'<a href="/checkpoints/\1">#\1</a>', safe))


def cell(value: object) -> Markup:
    """A cell of a topic's table."""
    if isinstance(value, At):
        return at(value)
    return linked("" if value is None else value)


def term(word: str, shown: str | None = None) -> Markup:
    """A word of the glossary with its meaning as a tooltip, which the keyboard reaches too."""
    meaning = (TERMS.get(word) or MEASURES[word]).replace("`", "")
    return Markup('<dfn class="term" tabindex="0" data-tip="{}" aria-label="{}: {}">{}</dfn>').format(
        meaning, word, meaning, shown or word
    )


def browser_json(value: Any) -> str:
    """The value as JSON that a browser reads: a number that is not finite, such as a diverged loss, is null."""
    return to_json(value, inf_nan_mode="null").decode()


def sorted_by(rows: Iterable[Any], key: str, *, reverse: bool = False) -> list[Any]:
    """Rows by an attribute; those without a value are last."""
    found = list(rows)
    have = [row for row in found if getattr(row, key) is not None]
    return sorted(have, key=lambda row: getattr(row, key), reverse=reverse) + [
        row for row in found if getattr(row, key) is None
    ]
