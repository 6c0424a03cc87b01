"""Results of the curriculum benchmark: means with intervals, and differences seed by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import sqrt
from statistics import mean, median, stdev
from typing import Any

from scipy.stats import t as student

CONFIDENCE = 0.95
_UNREACHED = (
    "Runs that did not reach it are left out of the means, and count below with the tokens they used.",
    "",
)


def as_markdown(runs: Sequence[Mapping[str, Any]], task: Mapping[str, Any], day: str) -> str:
    arms = list(dict.fromkeys(run["arm"] for run in runs))
    used = {arm: {run["seed"]: run["tokens"] for run in runs if run["arm"] == arm} for arm in arms}
    lines = [
        "# Tokens until the third level is mastered",
        "",
        f"`python -m benchmarks.curriculum.run --family {task['family']}`, {day}, the tiny model (120,320 parameters), "
        f"levels {', '.join(map(str, task['levels']))}, cycles of {task['rows']:,} examples, at most "
        f"{task['most_tokens']:,} tokens.",
        "Mastered: 90 % of 100 held-out items of level 3. Tokens are counted, so the machine's load does not matter.",
        "",
        "| strategy | seeds | reached | mean tokens, 95 % interval | median | each seed |",
        "|---|---|---|---|---|---|",
        *(_row(arm, list(used[arm].values())) for arm in arms),
        "",
        *(_UNREACHED if any(run["tokens"] is None for run in runs) else ()),
    ]
    return "\n".join([*lines, *(_compared(arms, runs) if len(arms) > 1 else ())])


def _compared(arms: Sequence[str], runs: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        "The same seed gives every strategy the same untrained model, so they are compared seed by seed:",
        "",
        "| strategies | tokens saved by the first, 95 % interval | seeds won |",
        "|---|---|---|",
        *(_pair(one, other, runs) for one, other in combinations(arms, 2)),
        "",
    ]


def _row(arm: str, tokens: Sequence[int | None]) -> str:
    reached = [number for number in tokens if number is not None]
    each = ", ".join("not reached" if number is None else f"{number / 1000:,.0f}k" for number in tokens)
    if not reached:
        return f"| {arm} | {len(tokens)} | 0 | | | {each} |"
    return (
        f"| {arm} | {len(tokens)} | {len(reached)} | {_interval([float(n) for n in reached])} "
        f"| {median(reached) / 1000:,.0f}k | {each} |"
    )


def _pair(one: str, other: str, runs: Sequence[Mapping[str, Any]]) -> str:
    spent = {(run["arm"], run["seed"]): run["tokens"] or run["curve"][-1]["tokens"] for run in runs}
    seeds = sorted(seed for arm, seed in spent if arm == one and (other, seed) in spent)
    saved = [float(spent[other, seed] - spent[one, seed]) for seed in seeds]
    return f"| {one} beside {other} | {_interval(saved)} | {sum(s > 0 for s in saved)} of {len(saved)} |"


def _interval(values: Sequence[float]) -> str:
    """Mean with Student's interval."""
    if len(values) < 2:
        return f"{mean(values) / 1000:,.0f}k"
    half = student.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * stdev(values) / sqrt(len(values))
    return f"{mean(values) / 1000:,.0f}k ± {half / 1000:,.0f}k"
