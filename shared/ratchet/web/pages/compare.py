"""Two checkpoints on the same items, answer by answer: what was gained and lost, and what the test says of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from ratchet.errors import PreconditionFailed, RatchetError
from ratchet.ledger.tables import CheckpointRow
from ratchet.tasks.graders import gold
from ratchet.views.checkpoint_names import find_checkpoint, label
from ratchet.views.comparison import Comparison, PairedItem, compare, comparison_in_words
from ratchet.views.topics import Reader
from ratchet.web.paging import Paging, paged
from ratchet.web.site import Query

ITEMS = 20
SUITES = ("eval", "probe")

CHANGES: Mapping[str, tuple[str, Callable[[PairedItem], bool]]] = {
    "differ": ("gained or lost", lambda pair: pair.gain != 0),
    "lost": ("lost", lambda pair: pair.gain < 0),
    "gained": ("gained", lambda pair: pair.gain > 0),
    "right": ("right in both", lambda pair: bool(pair.before.correct and pair.after.correct)),
    "wrong": ("wrong in both", lambda pair: pair.before.correct is False and pair.after.correct is False),
    "all": ("all", lambda _pair: True),
}
"""What can be filtered by: its words, and which items it has."""


def address_of(picked: Sequence[str]) -> str:
    """The address that compares two ticked checkpoints, the older one first. Raises PreconditionFailed for another
    number of them."""
    distinct = list(dict.fromkeys(picked))
    if len(distinct) != 2:
        count = len(distinct)
        raise PreconditionFailed(
            f"tick two checkpoints to compare them; {count} {'is' if count == 1 else 'are'} ticked."
        )
    if all(each.isdecimal() and len(each) < 10 for each in distinct):
        distinct.sort(key=int)
    return "/checkpoints/compare?" + urlencode({"a": distinct[0], "b": distinct[1]})


def read(reader: Reader, query: Query) -> dict[str, Any]:
    asked = {"a": query.get("a", "").strip(), "b": query.get("b", "").strip(), "suite": query.get("suite") or "eval"}
    found: dict[str, Any] = {"asked": asked, "suites": SUITES, "changes": CHANGES, "problem": "", "pair": ()}
    found |= {"wanted": {"family": query.get("family", ""), "change": query.get("change") or "differ"}}
    if not asked["a"] or not asked["b"]:
        return found
    try:
        pair = tuple(find_checkpoint(reader.session, asked[name]) for name in ("a", "b"))
        return found | _compared(reader, pair[0], pair[1], query)
    except RatchetError as error:
        # Shown beside the form, so that what was asked can be corrected there.
        return found | {"problem": str(error)}


def _compared(reader: Reader, earlier: CheckpointRow, later: CheckpointRow, query: Query) -> dict[str, Any]:
    if earlier.id == later.id:
        raise PreconditionFailed(f"both are {label(earlier)}: choose two different checkpoints.")
    change = query.get("change") or "differ"
    if change not in CHANGES:
        raise PreconditionFailed(f"there is no change {change!r}; there are: {', '.join(CHANGES)}.")
    whole = compare(reader, earlier, later, query.get("suite") or "eval")
    compared = whole.of_family(query.get("family") or None)
    fitting = [pair for pair in compared.pairs if CHANGES[change][1](pair)]
    page = paged({name: query[name] for name in query if query[name]}, ITEMS).of(len(fitting))
    return {
        "pair": (earlier, later),
        "compared": compared,
        "families": whole.families,
        "sentences": comparison_in_words(label(earlier), label(later), compared),
        "paging": page,
        "items": [_shown(pair) for pair in _of_page(fitting, page)],
        "levels": [cell for cell in compared.table if cell.gains or cell.losses],
        "rates": _rates(compared),
    }


def _of_page(pairs: Sequence[PairedItem], page: Paging) -> Sequence[PairedItem]:
    return pairs[page.offset : page.offset + page.limit]


def _rates(compared: Comparison) -> tuple[float, float] | None:
    """The shares of right answers of both, where items are graded."""
    total = compared.total
    if not total.n:
        return None
    before = (compared.both_right + total.losses) / total.n
    return before, before + total.effect


def _shown(pair: PairedItem) -> dict[str, Any]:
    kind = "gained" if pair.gain > 0 else "lost" if pair.gain < 0 else "same"
    is_graded = pair.before.metric == "accuracy"
    return {
        "kind": kind,
        "text": pair.text if kind != "same" else "right in both" if pair.before.correct else "wrong in both",
        "is_graded": is_graded,
        "family": pair.before.family,
        "level": pair.before.level,
        "question": pair.item.question,
        "gold": gold(pair.item),
        "answers": (pair.before, pair.after),
        "measured": [_measured(record.metric, record.score) for record in (pair.before, pair.after)],
    }


def _measured(metric: str, score: float | None) -> str:
    """The measure of an answer that is not graded."""
    if metric == "accuracy":
        return ""
    if score is None:
        return "not measured"
    return f"{-score:.2f} nats per token" if metric == "loss" else f"preference {score:g}"
