"""A verdict on two subjects: both are asked the same items, the base some twice, and the gate's tests decide."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ratchet.evaluation.noise_floor import NoiseFloor, noise_floor, noise_sample
from ratchet.evaluation.paired_outcomes import outcome_table, score_table
from ratchet.evaluation.record import Evaluation, ItemRecord
from ratchet.gate.decision import families_of, weigh
from ratchet.gate.verdict import give_verdict
from ratchet.gate.verdict_values import Verdict
from ratchet.settings.judging import GateSettings
from ratchet.verdict.answers import Asker
from ratchet.verdict.items import Items
from ratchet.verdict.subjects import Subject

Report = Callable[[str, int, int], None]
"""Is told who is asked, how many items are answered, and of how many."""


def compare(asker: Asker, candidate: Subject, base: Subject, report: Report) -> Verdict:
    """Ask both, and give the verdict on the candidate. Raises what ``Asker.ask`` does."""
    theirs = asker.ask(base, lambda done, total: report(base.name, done, total))
    noise = measure_noise(asker, base, theirs, lambda done, total: report(f"{base.name}, again", done, total))
    ours = asker.ask(candidate, lambda done, total: report(candidate.name, done, total))
    return verdict_of_records(ours, theirs, asker.settings.gate, noise=noise, notes=asker.items.notes)


def verdict_of_records(
    candidate: Evaluation,
    base: Evaluation,
    settings: GateSettings,
    *,
    noise: NoiseFloor | None = None,
    notes: tuple[str, ...] = (),
) -> Verdict:
    """The verdict on the candidate's record against the base's, at the whole of ``gate.alpha``: it is asked once."""
    conditions = {base.checkpoint_id: base.key.conditions(), candidate.checkpoint_id: candidate.key.conditions()}
    if candidate.key.conditions() != base.key.conditions():
        notes = (*notes, "The two were answered under different conditions, which may be a part of the difference.")
    paired = _under_conditions_of(base, _losses_per_token_of(base, candidate))
    table, scores = outcome_table(base, paired), score_table(base, paired)
    evidence = weigh(
        table,
        champion=base.checkpoint_id,
        challenger=candidate.checkpoint_id,
        k=0,
        alpha=settings.alpha,
        mastered={},
        settings=settings,
        smoke_passed=True,
        scores=scores,
        tasks=families_of(table, scores),
    )
    return give_verdict(evidence, settings, noise=noise, notes=notes, conditions=conditions)


def measure_noise(
    asker: Asker, subject: Subject, record: Evaluation, progress: Callable[[int, int], None]
) -> NoiseFloor:
    """Ask some items again, in batches of half the size, and count what has changed."""
    inference = asker.settings.inference
    smaller = inference.model_copy(
        update={"batch_size": max(1, inference.batch_size // 2), "concurrency": max(1, inference.concurrency // 2)}
    )
    part = Items(tuple(noise_sample(asker.items.items)), ())
    again = replace(
        asker,
        settings=asker.settings.model_copy(update={"inference": smaller}),
        items=part,
        folder=asker.folder / "again",
    ).ask(subject, progress)
    first = record.model_copy(update={"items": tuple(noise_sample(record.items))})
    return noise_floor(first, _under_conditions_of(first, again))


def _under_conditions_of(base: Evaluation, other: Evaluation) -> Evaluation:
    """The other record, to be paired with the base's whatever its engine: a verdict names both conditions."""
    key = other.key.model_copy(update=base.key.conditions())
    return other.model_copy(update={"key": key})


def _losses_per_token_of(base: Evaluation, other: Evaluation) -> Evaluation:
    """Losses as nats per token of the base's tokenizer: a tokenizer with longer tokens has larger losses for each."""
    tokens = {item.item_id: item.gold_tokens for item in base.items}
    items = tuple(_rescaled(item, tokens.get(item.item_id)) for item in other.items)
    return other.model_copy(update={"items": items})


def _rescaled(item: ItemRecord, tokens: int | None) -> ItemRecord:
    if item.gold_nll is None or not item.gold_tokens or not tokens or tokens == item.gold_tokens:
        return item
    return item.model_copy(update={"gold_nll": item.gold_nll * item.gold_tokens / tokens})
