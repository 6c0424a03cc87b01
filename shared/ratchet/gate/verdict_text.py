"""A verdict as Markdown: for a pull request, a log, or the folder of an export."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ratchet.atomic_files import atomic_write
from ratchet.evaluation.record import Metric
from ratchet.gate.proof_values import MarginProof, TargetProof
from ratchet.gate.verdict_values import Verdict

_TITLES = {
    "better": "Better",
    "not better": "Not better",
    "worse": "Worse",
    "cannot tell": "Cannot tell",
}


def write_verdict(verdict: Verdict, folder: Path) -> None:
    """Write ``verdict.json`` and ``verdict.md`` into a folder."""
    atomic_write(folder / "verdict.json", verdict.model_dump_json(indent=2) + "\n")
    atomic_write(folder / "verdict.md", to_markdown(verdict))


def to_markdown(verdict: Verdict) -> str:
    """The whole verdict, with a table of its tests."""
    return "\n".join(_lines(verdict)) + "\n"


def _lines(verdict: Verdict) -> Iterator[str]:
    yield f"# {_TITLES[verdict.verdict]}: {_cell(verdict.candidate)} against {_cell(verdict.base)}"
    yield ""
    for reason in verdict.reasons:
        yield f"- {_cell(reason)}"
    yield ""
    if verdict.targets:
        yield from _table(
            ("is it better?", "items", "difference", "95 % interval", "p", "proved"), _target_rows(verdict)
        )
    protected = [*verdict.families, *verdict.tasks]
    if protected:
        yield from _table(
            ("is it not worse?", "items", "difference", "may be", "margin", "proved"), _margin_rows(protected)
        )
    harmed = [level for level in verdict.levels if level.harmed]
    yield (
        "No level or kind of answer is proved worse."
        if not harmed
        else "Proved worse: " + ", ".join(f"{_cell(level.family)} level {level.level}" for level in harmed) + "."
    )
    yield ""
    if verdict.noise is not None:
        yield f"- {_cell(verdict.noise.sentence)}"
    for note in verdict.notes:
        yield f"- {_cell(note)}"
    for name, conditions in verdict.conditions.items():
        yield f"- {_cell(name)}: " + ", ".join(f"{key} {_cell(value)}" for key, value in conditions.items())


def _target_rows(verdict: Verdict) -> Iterator[Sequence[str]]:
    for target in verdict.targets:
        yield (
            _cell(target.task or "all graded items"),
            f"{target.n:,}",
            effect_in_words(target.effect, target.metric) + _counts(target),
            "–"
            if target.interval is None
            else f"{effect_in_words(target.interval.low, target.metric)} to "
            f"{effect_in_words(target.interval.high, target.metric)}",
            f"{target.p:.2g}",
            "yes" if target.proved else f"no, level {target.alpha:.2g}",
        )


def _counts(target: TargetProof) -> str:
    return "" if target.gains is None else f" ({target.gains} gains, {target.losses} losses)"


def _margin_rows(proofs: Sequence[MarginProof]) -> Iterator[Sequence[str]]:
    for proof in proofs:
        metric: Metric = getattr(proof, "metric", "accuracy")
        yield (
            _cell(proof.family),
            f"{proof.n:,}",
            effect_in_words(proof.effect, metric),
            effect_in_words(proof.lower_bound, metric),
            effect_in_words(-proof.margin, metric),
            "yes" if proof.safe else "no",
        )


def effect_in_words(effect: float, metric: Metric) -> str:
    """``+2.5 %`` of the items, or ``+0.031`` nats per token; positive is better."""
    return f"{effect:+.3f} nats/token" if metric == "loss" else f"{100 * effect:+.1f} %"


def _table(header: Sequence[str], rows: Iterator[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(header) + " |"
    yield "|" + "---|" * len(header)
    for row in rows:
        yield "| " + " | ".join(row) + " |"
    yield ""


def _cell(text: str) -> str:
    """Text from outside, which may not end a cell or begin markup."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())
