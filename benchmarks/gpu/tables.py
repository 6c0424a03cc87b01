"""The results as Markdown: a paragraph about the card and a table for each section. It imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from benchmarks.gpu.plan import HALVING, JUDGING, LEASE, LOSS, PADDING, RESUME, TRAINING, Measurement
from benchmarks.gpu.processes import Outcome

NOT_MEASURED = "not measured"
NO_TIME = "no time left"
NOTHING = "–"
Values = dict[str, Any]
Row = tuple[str, Values | str]
"""A label, and values or the reason why there are none."""
Columns = dict[str, Callable[[Values], str]]
Result = tuple[Measurement, Outcome]


def report(command: str, card: Outcome, results: Sequence[Result]) -> str:
    """Everything as Markdown."""
    found = card.values
    sections = [
        ("Training", _TRAINING_TEXT, "model and contender", _rows(results, TRAINING), _training_columns(found)),
        ("Memory beside the estimate", _MEMORY_TEXT, "engine on", list(_engines(results)), _memory_columns()),
        ("Padding", _PADDING_TEXT, "rows", _rows(results, PADDING), _variant_columns()),
        ("Fused linear cross-entropy", _LOSS_TEXT, "loss", _rows(results, LOSS), _variant_columns()),
        ("Resuming bit for bit", _RESUME_TEXT, "engine on", _rows(results, RESUME), _resume_columns()),
        ("Noise floor of judging", _NOISE_TEXT, "judged in", list(_parts(results, "floors")), _noise_columns()),
        ("Judged and served", _SERVED_TEXT, "served in", list(_parts(results, "served")), _served_columns()),
        ("Sharing a card", _LEASE_TEXT, "who", _rows(results, LEASE), _lease_columns()),
        ("Out of memory", _HALVING_TEXT, "micro-batch", _rows(results, HALVING), _halving_columns()),
    ]
    lines = [f"`{command}`", "", describe(card), ""]
    for title, text, header, rows, columns in sections:
        lines += [f"## {title}", "", text, "", *table(header, rows, columns), ""]
    return "\n".join(lines)


def describe(card: Outcome) -> str:
    """The machine in one paragraph."""
    found = card.values
    if card.missing is not None:
        return f"The card's own figures are {NOT_MEASURED}: {card.missing}."
    if found["memory_gib"] is None:
        return (
            "No NVIDIA GPU: toy sizes on a CPU, in one process, which show that everything runs and say nothing about "
            f"a card. torch {found['torch']}; matrix peak {found['peak'] / 1e9:.1f} GFLOP/s in fp32 on one thread."
        )
    by_size = ", ".join(f"{size}: {speed / 1e12:.0f}" for size, speed in found["speeds"].items())
    return (
        f"{found['name']}, {found['memory_gib']:.0f} GiB, driver {found['driver']}, torch {found['torch']}, CUDA "
        f"{found['cuda']}. Matrix peak measured in bf16: {found['peak'] / 1e12:.0f} TFLOP/s (by the side of the "
        f"matrices {by_size}); the memory copies {found['copy_bytes_per_s'] / 1e12:.2f} TB/s."
    )


def table(header: str, rows: Iterable[Row], columns: Columns) -> list[str]:
    """The lines of a table. A row without values has the reason in its second cell."""
    width = len(columns)
    lines = [_line([header, *columns]), _line(["---"] * (1 + width))]
    for label, values in rows:
        if isinstance(values, str):
            lines.append(_line([label, f"{NOT_MEASURED}: {values}", *[NOTHING] * (width - 1)]))
        else:
            lines.append(_line([label, *(cell(values) for cell in columns.values())]))
    return lines


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _rows(results: Sequence[Result], section: str) -> list[Row]:
    return [
        (row.label, outcome.values if outcome.missing is None else outcome.missing)
        for row, outcome in results
        if row.section == section
    ]


def _engines(results: Sequence[Result]) -> Iterable[Row]:
    for label, values in _rows(results, TRAINING):
        name, _, contender = label.rpartition(": ")
        if contender == "engine":
            yield name, values


def _parts(results: Sequence[Result], part: str) -> Iterable[Row]:
    """A row for each dtype."""
    for label, values in _rows(results, JUDGING):
        if isinstance(values, str):
            yield label, values
        else:
            yield from ((str(each["dtype"]), each) for each in values[part])


def _gb(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{value / 1e9:.2f} GB"


def _seconds(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{value:.2f} s"


def _training_columns(card: Values) -> Columns:
    peak = card.get("peak")
    on_card = card.get("memory_gib") is not None
    return {
        "tokens/s": lambda v: f"{v['tokens_per_s']:,.0f}",
        "of the matrix peak": lambda v: f"{v['flops_per_s'] / peak:.1%}" if peak else NOT_MEASURED,
        "peak memory": lambda v: _gb(v["memory"]["reserved"] if on_card else None),
        "to load": lambda v: _seconds(v["load_s"]),
        "to the first step": lambda v: _seconds(v["first_step_s"]),
    }


def _memory_columns() -> Columns:
    def ratio(values: Values) -> str:
        whole = values["memory"]["whole"] if values["memory"]["reserved"] is not None else None
        return NOT_MEASURED if whole is None else f"{values['estimate_as_trained'] / whole:.2f}"

    return {
        "by tensors": lambda v: _gb(v["memory"]["allocated"]),
        "by torch's allocator": lambda v: _gb(v["memory"]["reserved"]),
        "of the card in all": lambda v: _gb(v["memory"]["whole"] if v["memory"]["reserved"] is not None else None),
        "estimate for this batch": lambda v: _gb(v["estimate_as_trained"]),
        "estimate / measured": ratio,
        "estimate for the longest rows": lambda v: _gb(v["estimate"]),
    }


def _variant_columns() -> Columns:
    return {
        "tokens/s": lambda v: f"{v['tokens_per_s']:,.0f}",
        "peak of tensors": lambda v: _gb(v["memory"]["allocated"]),
        "padding": lambda v: f"{v['padding_share']:.1%}",
        "attention": lambda v: v["attention"],
    }


def _resume_columns() -> Columns:
    def compared(values: Values) -> str:
        if not values["differing"]:
            return f"the same bits in all {values['tensors']} tensors"
        return (
            f"{values['differing']} of {values['tensors']} tensors differ, in {values['elements']:,} of "
            f"{values['all_elements']:,} numbers, by {values['largest']:.2g} at most; losses from step "
            f"{values['first_step'] or 'none'}"
        )

    return {
        "interrupted and resumed": lambda v: compared(v["resumed"]),
        "run twice without": lambda v: compared(v["again"]),
        "steps": lambda v: f"{v['steps']}",
        "precision, attention": lambda v: f"{v['precision']}, {v['attention']}",
    }


def _noise_columns() -> Columns:
    return {
        "batch sizes": lambda v: ", ".join(map(str, v["batch_sizes"])),
        "right": lambda v: f"{v['right']} of {v['items']}",
        "texts changed (worst pair)": lambda v: f"{v['changed']}",
        "grades flipped (worst pair)": lambda v: f"{v['flips']}, at most {v['upper']:.1%}",
        "flipped in any pair": lambda v: f"{v['flipped_in_any']}",
    }


def _served_columns() -> Columns:
    def gap(value: float | None, limit: float) -> str:
        return NOT_MEASURED if value is None else f"{value:.2g} of {limit:g}"

    return {
        "canary": lambda v: "passed" if v["passed"] else v["reason"],
        "largest difference of a log-probability": lambda v: gap(v["largest_difference"], v["epsilon"]),
        "mean": lambda v: NOT_MEASURED if v["mean_difference"] is None else f"{v['mean_difference']:.2g}",
        "same texts": lambda v: f"{v['same_texts']} of {v['items']}, {v['ties']} ties",
        "grades lost, won": lambda v: f"{v['lost']}, {v['won']}",
    }


def _lease_columns() -> Columns:
    def speeds(values: Values) -> str:
        if "tokens_per_s" not in values:
            return NOT_MEASURED
        each = " and ".join(f"{speed:,.0f}" for speed in values["tokens_per_s"])
        return f"{each} (alone {values['alone_tokens_per_s']:,.0f})"

    def reserved(values: Values) -> str:
        return " and ".join(map(_gb, values["reserved"])) if "reserved" in values else NOT_MEASURED

    return {
        "lease of each": lambda v: f"{v['share_gb']} GiB",
        "tokens/s": speeds,
        "reserved": reserved,
        "held together for": lambda v: _seconds(v.get("held_together_s")),
        "a third": lambda v: "refused" if v["third_refused"] else "NOT refused",
    }


def _halving_columns() -> Columns:
    return {
        "cap": lambda v: _gb(v["cap"]),
        "trained with": lambda v: f"{v['found']} rows × {v['accumulation']}",
        "in": lambda v: _seconds(v["first_s"]),
        "second run began with": lambda v: f"{v['second_found']} rows",
        "and took": lambda v: _seconds(v["second_s"]),
        "reserved": lambda v: _gb(v["reserved"]),
    }


_TRAINING_TEXT = (
    "Random weights, the same rows in the same order; bf16 autocast on a card. Tokens are inputs without padding, and "
    "the first three steps are left out of the speed. The share counts the operations that these tokens need, so that "
    "padding and recomputation lower it. The first step is timed from the end of loading. Peak memory is what torch's "
    "allocator reserved."
)
_MEMORY_TEXT = (
    "The estimate is that of `init` (ratchet.training_memory), once for the largest micro-batch that was trained on, "
    "and once, as a user sees it, for rows of the maximum length alone. The card in all is the allocator's peak and "
    "whatever else is in use on it, the context and other processes included."
)
_PADDING_TEXT = (
    "Rows of lengths spread evenly from a quarter of the longest to it. `grouped` is the variable-length attention "
    "that the engine uses on a CPU, which batches rows of similar length; it is no setting on a card."
)
_LOSS_TEXT = (
    "The engine projects trained positions alone. The fused operations, which the engine does not use, hold a part of "
    "these logits at a time."
)
_RESUME_TEXT = (
    "Interrupted in the middle, saved, and resumed in a new model. Compared are trained weights in fp32 and both "
    "moments of AdamW. Where two uninterrupted runs differ, no resumption could be exact."
)
_NOISE_TEXT = (
    "A small model, trained for a moment to sort digits, is judged three times by testing's code in batches of other "
    "sizes. Grades flip where rounding decides between two tokens; the limit is the upper end of the 95 % interval."
)
_SERVED_TEXT = (
    "The inference server's batcher answers the same items at once. The deployer's canary compares them with what was "
    "judged; the limit of a difference is its epsilon for the dtype."
)
_LEASE_TEXT = (
    "Two processes lease half of the card each and train at the same time. While both hold their lease, a third asks "
    "for one GiB."
)
_HALVING_TEXT = (
    "The card is capped to the estimate for micro-batches of 16 rows. The engine halves them until they fit, keeps the "
    "rows of a step, and remembers the size for the next run."
)
