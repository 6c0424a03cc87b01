"""The numbers of a verdict for people: the important ones with names and units, tables of the others, and all as lines.

A verdict's numbers are JSON whose shape its system chooses. Those of the systems of Ratchet are known here; of a
plug-in's, and of shapes of earlier versions, the lines are shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from ratchet.views.topics import Table
from ratchet.wording import size

Numbers = Mapping[str, Any]
Pair = tuple[str, str]

MOST_LINES = 200
"""Lines of numbers that a page shows; `ratchet why --numbers` prints all."""


@dataclass(frozen=True)
class Readable:
    """``facts`` are names with values, ``tables`` further numbers."""

    facts: tuple[Pair, ...] = ()
    tables: tuple[Table, ...] = ()


def readable(system: str, numbers: Numbers) -> Readable:
    """The numbers of a verdict of that system, as far as their shape is known."""
    facts, tables = FACTS.get(system), TABLES.get(system)
    try:
        return Readable(
            tuple(facts(numbers)) if facts is not None else (),
            tuple(_evaluated(table) for table in tables(numbers)) if tables is not None else (),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return Readable()  # a shape of another version, of which the lines are shown


def _evaluated(table: Table) -> Table:
    """The table with the texts of its cells, so that a row of an unknown shape is noticed here."""
    rows = [{heading: value(row) for heading, value in table.columns.items()} for row in table.rows]
    columns = {heading: itemgetter(heading) for heading in table.columns}
    return Table(table.name, rows, columns, title=table.title)


def lines(numbers: Numbers, prefix: str = "") -> list[str]:
    """All numbers as ``name: value`` lines, with the scalars of one level on one line."""
    scalars = {k: v for k, v in numbers.items() if not isinstance(v, dict | list | tuple) and v is not None}
    found = [prefix + ", ".join(f"{_words(k)} {_value(v)}" for k, v in scalars.items())] if scalars else []
    for name, value in numbers.items():
        if isinstance(value, dict) and value:
            found += lines(value, f"{prefix}{_words(name)}: ")
        elif isinstance(value, list | tuple) and value:
            found += _list(f"{prefix}{_words(name)}", value)
    return found


def _list(name: str, values: Sequence[Any]) -> list[str]:
    if all(isinstance(value, dict) for value in values):
        return [line for value in values for line in lines(value, f"{name}: ")]
    return [f"{name}: {', '.join(_value(value) for value in values)}"]


def _words(name: str) -> str:
    return name.replace("_", " ")


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _points(share: float) -> str:
    return f"{100 * share:+.1f} points"


def _range(interval: Numbers | None) -> str:
    """An interval of shares, in points."""
    return f"{100 * interval['low']:+.1f} to {100 * interval['high']:+.1f}" if interval else ""


def _percents(interval: Numbers | None) -> str:
    return f"{100 * interval['low']:.1f} to {100 * interval['high']:.1f} %" if interval else ""


def _counted(counts: Mapping[str, Any]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _testing(numbers: Numbers) -> Iterator[Pair]:
    """The results are in the verdict's reason already."""
    if numbers.get("degenerate"):
        yield "degenerate", str(numbers["degenerate"])


def _comparison(numbers: Numbers) -> Iterator[Pair]:
    yield "place", f"{numbers['rank']}" + (", tied with the best" if numbers["is_tied_with_best"] else "")
    measured = f"{100 * numbers['score']:.1f} % on {numbers['n']} items"
    yield "score over all tasks", f"{measured} (95 % {_percents(numbers['interval'])})"
    yield "behind the best of its group", f"{100 * numbers['behind_at_most']:.1f} points at most"
    cost = numbers.get("cost")
    if cost:
        yield "cost", f"{cost['tokens_per_s']:,.0f} tokens/s, {size(cost['size_bytes'])}"
    if numbers.get("over_budget"):
        yield "over budget", str(numbers["over_budget"])


def _ranked_families(numbers: Numbers) -> Iterator[Table]:
    rows = [{"family": name, **rank} for name, rank in numbers.get("by_family", {}).items()]
    yield Table(
        "families",
        rows,
        {
            "task": lambda r: r["family"],
            ">measured": lambda r: (
                f"{r['mean']:.2f} nats/token" if r["metric"] == "loss" else f"{100 * r['mean']:.1f} %"
            ),
            "95 % interval": lambda r: _family_range(r),
            ">items": lambda r: r["n"],
            ">place": lambda r: r["rank"],
            "tie": lambda r: "best or tied" if r["is_tied_with_best"] else "",
        },
        title="Place by task",
    )


def _family_range(rank: Numbers) -> str:
    bounds = rank["interval"]
    if not bounds:
        return ""
    return f"{bounds['low']:.2f} to {bounds['high']:.2f}" if rank["metric"] == "loss" else _percents(bounds)


def _regression(numbers: Numbers) -> Iterator[Pair]:
    overall = numbers.get("overall")
    if overall:
        counts = f"{overall['gains']} gained, {overall['losses']} lost of {overall['n']} items"
        yield "all graded items", f"{_points(overall['effect'])} (95 % {_range(overall['interval'])}); {counts}"
        yield "compared with", str(overall["baseline"])
    if numbers.get("smallest_visible_drop") is not None:
        visible = f"{100 * numbers['smallest_visible_drop']:.1f} points"
        yield "smallest drop that would have been seen", f"{visible}, in {numbers['power']:.0%} of such tests"
    if numbers.get("forgotten"):
        yield "forgotten", ", ".join(numbers["forgotten"])
    for rise in numbers.get("losses", ()):
        yield (
            "loss of the right answers on learnt levels",
            f"{rise['before']:.3f} → {rise['after']:.3f} nats/token against {rise['baseline']}, on {rise['n']} items",
        )


def _drops(numbers: Numbers) -> Iterator[Table]:
    yield Table(
        "drops",
        numbers.get("drops", ()),
        {
            "where": lambda d: (
                "all" if d["family"] is None else " ".join(map(str, filter(None, (d["family"], d["level"]))))
            ),
            "against": lambda d: d["baseline"],
            ">items": lambda d: d["n"],
            ">gained": lambda d: d["gains"],
            ">lost": lambda d: d["losses"],
            ">points": lambda d: f"{100 * d['effect']:+.1f}",
            "95 % interval": lambda d: _range(d["interval"]),
            ">p, corrected": lambda d: f"{d['p_holm']:.2g}",
            "proved worse": lambda d: "" if d["severity"] == "none" else d["severity"],
        },
        title="All comparisons",
    )
    yield Table(
        "scores",
        numbers.get("scores", ()),
        {
            "task": lambda d: d["family"],
            "against": lambda d: d["baseline"],
            ">items": lambda d: d["n"],
            ">before": lambda d: f"{d['before']:.3f}",
            ">after": lambda d: f"{d['after']:.3f}",
            "measure": lambda d: "loss, nats/token" if d["metric"] == "loss" else "share preferred",
            ">p, corrected": lambda d: f"{d['p_holm']:.2g}",
            "proved worse": lambda d: "" if d["severity"] == "none" else d["severity"],
        },
        title="Tasks with another measure",
    )


def _calibration(numbers: Numbers) -> Iterator[Pair]:
    if not numbers.get("shipped"):
        right, items = sum(numbers["right"]), sum(numbers["items"])
        yield "right answers", f"{right} of {items}, too few of one kind to learn from"
        return
    yield "ECE", f"{numbers['raw']['ece']:.3f} before, {numbers['tempered']['ece']:.3f} after"
    yield "temperature", f"{numbers['temperature']:.2f}"
    yield "fitted on", f"{numbers['fitted_on']} items, measured on {numbers['raw']['n']} others"


def _screened(numbers: Numbers) -> Iterator[Pair]:
    for screened in numbers.get("targets", ()):
        target = screened["target"]
        effect = target["effect"]  # of a score, which is higher where the loss is lower
        told = f"{-effect:+.3f} nats/token" if target["metric"] == "loss" else _points(effect)
        needed = f"p = {target['p']:.2g} where {target['alpha']:.2g} is allowed"
        few = "" if screened.get("decides", True) else "; too few items for the p to count"
        yield target.get("task") or "all graded items", f"{told} on {target['n']} items, {needed}{few}"


def _curriculum(numbers: Numbers) -> Iterator[Pair]:
    trial = numbers.get("trial")
    if trial:
        counts = f"{trial['gains']} gained, {trial['losses']} lost of {trial['items']} probe items"
        yield f"trial of the arm {trial['arm']}", f"{counts}, after {trial['tokens']:,} tokens of training"
    for task in numbers.get("tasks") or ():
        best = "the best so far" if task.get("is_best") else "not better than the best before"
        yield f"task {task['task']}", f"{best}, on {task['items']} items"


def _mining(numbers: Numbers) -> Iterator[Pair]:
    if numbers.get("by_category"):
        yield "weak items", _counted(numbers["by_category"])
    if numbers.get("by_origin"):
        yield "found by", _counted(numbers["by_origin"])
    if numbers.get("asked"):
        yield "questions asked", f"{numbers['asked']}, and {numbers.get('rows_asked', 0)} rows of the training data"
    again = numbers.get("follow_up")
    if again:
        yield (
            "the set before",
            f"{again['mined_failed']} of {again['mined']} still failed, of random items "
            f"{again['random_failed']} of {again['random']}",
        )


def _correction(numbers: Numbers) -> Iterator[Pair]:
    if numbers.get("by_error"):
        yield "lessons", _counted(numbers["by_error"])
    if numbers.get("left_out"):
        yield "left out", _counted(numbers["left_out"])


FACTS: Mapping[str, Callable[[Numbers], Iterator[Pair]]] = {
    "testing": _testing,
    "comparison": _comparison,
    "regression": _regression,
    "calibration": _calibration,
    "deployment": _screened,
    "curriculum": _curriculum,
    "mining": _mining,
    "correction": _correction,
}
TABLES: Mapping[str, Callable[[Numbers], Iterator[Table]]] = {"comparison": _ranked_families, "regression": _drops}
