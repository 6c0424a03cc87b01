"""Pages of long lists: which rows an address asks for, and the addresses of the pages beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from ratchet.errors import PreconditionFailed

MOST_PAGES = 1_000_000


@dataclass(frozen=True)
class Paging:
    """Page ``number`` (from 1) of a list with ``limit`` rows a page; ``others`` are the other parameters.

    ``name`` is the parameter of the number, and the id of the list where a page has several.
    """

    number: int
    limit: int
    others: Mapping[str, str]
    count: int = 0
    name: str = "page"

    @property
    def offset(self) -> int:
        return (self.number - 1) * self.limit

    @property
    def pages(self) -> int:
        return max(1, -(-self.count // self.limit))

    @property
    def first(self) -> int:
        """The number of the first row that is shown, from 1; 0 of an empty list."""
        return min(self.offset + 1, self.count)

    @property
    def last(self) -> int:
        return min(self.offset + self.limit, self.count)

    def of(self, count: int) -> Paging:
        """The same page, of a list with that many rows."""
        return Paging(self.number, self.limit, self.others, count, self.name)

    def address(self, number: int) -> str:
        """The parameters of another page."""
        place = "" if self.name == "page" else f"#{self.name}"
        return "?" + urlencode({**self.others, self.name: number}) + place


def paged(query: Mapping[str, str], limit: int, name: str = "page") -> Paging:
    """The page that an address asks for. Raises PreconditionFailed for a number that is none."""
    text = query.get(name, "1")
    if not text.isdecimal() or not 1 <= int(text[:9]) <= MOST_PAGES:
        raise PreconditionFailed(f"there is no page {text[:40]!r}.")
    others = {other: value for other, value in query.items() if other != name}
    return Paging(int(text[:9]), limit, others, name=name)


def begins_before(query: Mapping[str, str], name: str = "before") -> int | None:
    """The id before which a page of a list begins whose rows are numbered; None for its first page.

    Raises PreconditionFailed for text that is no number.
    """
    text = query.get(name)
    if text is None or text == "":
        return None
    if not text.isdecimal() or len(text) > 15:
        raise PreconditionFailed(f"{name}={text[:40]!r} is no number of a row; leave it out for the newest rows.")
    return int(text)


def address_with(query: Mapping[str, str], place: str = "", **changes: object) -> str:
    """The parameters of this page with changes, those that are None or empty left out, and the id of a section."""
    merged = {**query, **{name: "" if value is None else str(value) for name, value in changes.items()}}
    kept = {name: value for name, value in merged.items() if value != ""}
    return "?" + urlencode(kept) + (f"#{place}" if place else "")
