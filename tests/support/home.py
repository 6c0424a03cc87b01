"""A small home, set up as the first run sets it up, and stories to tell in it without training or asking a model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import Any

from ratchet.artifacts import ArtifactStore, weights_digest
from ratchet.data.example import Example
from ratchet.evaluation.load_evaluation import ITEMS, load_suite
from ratchet.evaluation.record import (
    Evaluation,
    ItemRecord,
    RecordKey,
    level_rates,
    rates_to_json,
    records_to_lines,
    task_scores,
)
from ratchet.ledger import Ledger
from ratchet.ledger.lineage import checkpoint_id, head, lineage, next_ordinal
from ratchet.ledger.migrate import migrate
from ratchet.ledger.queue import Origin, submit
from ratchet.ledger.suites import current
from ratchet.ledger.tables import BatchRow, CheckpointRow, DeadLetterRow, EvaluationRow, VerdictRow
from ratchet.run.bootstrap import bootstrap
from ratchet.settings import Settings
from ratchet.systems import System
from ratchet.systems.work import Children
from ratchet.user_tasks import add
from sqlalchemy import select

from tests.support.bus import InProcessBus

SMALL: dict[str, dict[str, Any]] = {
    "suites": {
        "families": [{"name": "chain_sum", "levels": [1, 2]}, {"name": "reverse", "levels": [1, 2]}],
        "probe_items": 40,
        "eval_items": 80,
        "confirm_items": 120,
        "max_new_tokens": 16,
        "general_prompts": "none",
    },
    "queue": {"low_water": 300, "high_water": 600, "batch_examples": 200},
    "mining": {"search_items": 0},
    "correction": {"samples": 0},
    "hyperparams": {"max_length": 128},
    "control": {
        "lease_s": 10.0,
        "max_backoff_s": 0.002,
    },
}
"""Settings of two families with two levels each, and batches of 200; mining and correction ask no model."""

Knows = Callable[[Example], bool]
"""Whether a made-up model answers an item right."""


@dataclass
class Home:
    """A ledger and an artifact store with suites, base model, champion and line."""

    settings: Settings
    ledger: Ledger
    artifacts: ArtifactStore

    def bus(self, *systems: System, children: Children | None = None) -> InProcessBus:
        """Turns these systems here, in this process."""
        return InProcessBus(systems, self.settings, self.ledger, self.artifacts, children)

    def suite_items(self, pool: str) -> tuple[Example, ...]:
        """The items of the pool's suite in force."""
        with self.ledger.read() as session:
            return load_suite(self.artifacts, current(session, pool)).items

    def base_id(self) -> str:
        with self.ledger.read() as session:
            return session.scalars(select(CheckpointRow.id).where(CheckpointRow.ordinal == 0)).one()

    def add_checkpoint(self, batch_id: str | None = None, *, size_bytes: int = 1_000) -> str:
        """An untrained checkpoint at the head of the lineage."""
        folder = self.settings.work_folder / "made-up"
        folder.mkdir(parents=True, exist_ok=True)
        with self.ledger.write() as tx:
            ordinal, parent = next_ordinal(tx.session), head(tx.session)
            (folder / "model.safetensors").write_text(f"weights {ordinal}")
            artifact = self.artifacts.publish(folder, "checkpoint", {}, consume=True)
            weights = weights_digest(artifact.manifest)
            row = CheckpointRow(
                id=checkpoint_id(ordinal, weights),
                ordinal=ordinal,
                parent_id=parent.id,
                batch_id=batch_id,
                step=10 * ordinal,
                tokens=1_000 * ordinal,
                weights=weights,
                artifact=artifact.id,
                state_artifact=None,
                size_bytes=size_bytes,
                created_at=tx.now,
            )
            tx.session.add(row)
            tx.session.flush()
            lineage(tx.session).head_id = row.id
        return row.id

    def add_batch(self, rows: Sequence[Example], origin: Origin = "generation", **changes: Any) -> str:
        """A submitted batch of these rows; ``changes`` are columns to set, as ``state="queued"``."""
        artifact = self.artifacts.publish_lines((row.to_line() for row in rows), "batch", {})
        with self.ledger.write() as tx:
            tx.emit(submit(tx, artifact.id, len(rows), origin, {}))
            tx.session.flush()
            row = tx.session.get_one(BatchRow, artifact.id[:16])
            for name, value in changes.items():
                setattr(row, name, value)
            if row.state not in ("submitted", "rejected"):
                row.artifact, row.examples = artifact.id, len(rows)
                row.queued_at = row.queued_at or tx.now
        return artifact.id[:16]

    def add_record(self, checkpoint: str, pool: str, knows: Knows, sure: float = 0.95) -> Evaluation:
        """A record of the checkpoint on the pool's suite in force, as if testing had made it."""
        records = tuple(made_up_answer(item, knows(item), sure) for item in self.suite_items(pool))
        return self.store_record(checkpoint, pool, records)

    def store_record(self, checkpoint: str, pool: str, records: tuple[ItemRecord, ...]) -> Evaluation:
        """Store answers to the items of the pool's suite in force as the checkpoint's record."""
        with self.ledger.read() as session:
            suite, row = current(session, pool), session.get_one(CheckpointRow, checkpoint)
        key = made_up_key(row.weights, suite.id)
        folder = self.settings.work_folder / "made-up-record"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ITEMS).write_text(records_to_lines(records))
        artifact = self.artifacts.publish(folder, "record", {"checkpoint": checkpoint}, consume=True)
        with self.ledger.write() as tx:
            tx.session.add(
                EvaluationRow(
                    id=f"{checkpoint}/{suite.id}",
                    checkpoint_id=checkpoint,
                    suite_id=suite.id,
                    pool=pool,
                    key=key.model_dump(),
                    artifact=artifact.id,
                    items=len(records),
                    correct=sum(bool(record.correct) for record in records),
                    by_level=rates_to_json(level_rates(records)),
                    scores={family: score.model_dump() for family, score in task_scores(records).items()},
                    tokens_per_s=1_000.0,
                    created_at=tx.now,
                )
            )
        return Evaluation(checkpoint_id=checkpoint, key=key, items=records)

    def verdicts(self, system: str) -> dict[str, str]:
        """Outcomes of the system by subject id."""
        with self.ledger.read() as session:
            rows = session.scalars(select(VerdictRow).where(VerdictRow.system == system).order_by(VerdictRow.id))
            return {row.subject_id: row.outcome for row in rows}

    def dead(self) -> list[str]:
        """Errors of the dead letters."""
        with self.ledger.read() as session:
            return [f"{row.system} {row.subject_id}: {row.error}" for row in session.scalars(select(DeadLetterRow))]


@contextmanager
def small_home(
    folder: Path,
    prepare: Callable[[dict[str, Any]], dict[str, str]] | None = None,
    /,
    own_data: Sequence[Path] = (),
    **sections: Any,
) -> Iterator[Home]:
    """Set up a home for the block. ``sections`` are merged over SMALL; ``prepare`` makes a real base model; each file
    of ``own_data`` becomes a task.

    Without it the base model is a file that no one can load, beside a tokenizer that counts.
    """
    settings = Settings(home=folder, **merged(SMALL, sections))
    ledger = Ledger(settings.ledger_url)
    migrate(ledger)
    artifacts = ArtifactStore(settings.artifact_url)
    make = prepare or made_up_model
    for file in own_data:
        prepared = add.prepare(settings, ledger, artifacts, file, file.name, add.Choice())
        assert prepared is not None, "the file has rows of no built-in family"
        add.add_prepared(settings, ledger, artifacts, prepared)
    bootstrap(settings, ledger, artifacts, lambda _settings, spec: make(spec))
    try:
        yield Home(settings, ledger, artifacts)
    finally:
        ledger.close()


def merged(base: Mapping[str, Any], sections: Mapping[str, Any]) -> dict[str, Any]:
    """Sections of settings over others, key by key."""
    both = {**base, **sections}
    for name in base.keys() & sections.keys():
        if isinstance(base[name], Mapping) and isinstance(sections[name], Mapping):
            both[name] = {**base[name], **sections[name]}
    return both


def made_up_model(spec: dict[str, Any]) -> dict[str, str]:
    """A replacement for ratchet.run.base_model in tests without a model: one token a character."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

    folder = Path(spec["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.WordLevel({"<end>": 0}, unk_token="<end>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.add_special_tokens([AddedToken("<end>", normalized=False)])
    tokenizer.save(str(folder / "tokenizer.json"))
    template = "{% for turn in messages %}{{ turn['role'] + ':' + turn['content'] + '<end>' }}{% endfor %}"
    (folder / "chat_template.jinja").write_text(
        template + "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
    )
    (folder / "model.safetensors").write_text("weights 0")
    config = {"architectures": ["MadeUp"], "max_position_embeddings": 1024, "vocab_size": 1}
    (folder / "config.json").write_text(json.dumps(config))
    return {"folder": str(folder)}


def made_up_key(weights: str, suite_id: str) -> RecordKey:
    """The key of a made-up record."""
    return RecordKey(
        weights=weights,
        suite=suite_id,
        grader="made-up",
        decoding="greedy",
        dtype="fp32",
        engine="made-up",
        gpu_class="cpu",
    )


def made_up_answer(item: Example, is_right: bool, sure: float) -> ItemRecord:
    """One item answered by its own solution, or wrongly."""
    text = str(item.answer) if is_right else "wrong"
    return ItemRecord(
        item_id=item.id,
        key=str(item.metadata["key"]),
        family=str(item.family),
        level=item.level,
        answer=text,
        extracted=text,
        extraction="ok",
        correct=is_right,
        token_logprobs=(log(sure),) * 2,
        finish_reason="stop",
        latency_s=0.0,
        token_ids=(1, 2),
    )
