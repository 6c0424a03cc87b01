"""Loads suites and evaluations: the ledger's row names the artifact, and the artifact's lines are the items.

This is the only module of the package that uses the ledger's tables.
"""

from __future__ import annotations

import logging
from functools import lru_cache

from ratchet.artifacts import ArtifactStore
from ratchet.errors import ArtifactError, EmptyEvaluation
from ratchet.evaluation.record import Evaluation, RecordKey, records_from_lines
from ratchet.evaluation.suite import Suite
from ratchet.ledger.tables import EvaluationRow, SuiteRow

log = logging.getLogger(__name__)

ITEMS = "items.jsonl"
CACHED_RECORDS = 8
"""Number of records cached in a worker; one with a thousand answers of 200 tokens takes about 20 MB."""


def load_evaluation(artifacts: ArtifactStore, row: EvaluationRow) -> Evaluation:
    """The evaluation of a ledger row. Raises EmptyEvaluation if it has no items, ArtifactError for a damaged file."""
    return _cached(artifacts, row.artifact, row.checkpoint_id, RecordKey.model_validate(row.key).model_dump_json())


def read_evaluation(artifacts: ArtifactStore, row: EvaluationRow) -> Evaluation:
    """As ``load_evaluation``, but nothing stays in memory: for a process that shows records."""
    return _read(artifacts, row.artifact, row.checkpoint_id, RecordKey.model_validate(row.key).model_dump_json())


def load_if_intact(artifacts: ArtifactStore, row: EvaluationRow) -> Evaluation | None:
    """As ``load_evaluation``, but None if the file is damaged or missing; the checkpoint must then be tested again."""
    try:
        return load_evaluation(artifacts, row)
    except ArtifactError as error:
        log.error("the record of %s on suite %s cannot be read: %s", row.checkpoint_id, row.suite_id, error)
        return None


def load_suite(artifacts: ArtifactStore, row: SuiteRow) -> Suite:
    """The suite of a ledger row. Raises ArtifactError, or DataError, naming a line."""
    return Suite.from_lines(row.pool, artifacts.open_lines(row.artifact), row.ordinal)  # type: ignore[arg-type]


def suite_row(suite: Suite, artifact: str, now: float) -> SuiteRow:
    """The row of a suite that was published as ``artifact``, valid from ``now`` on."""
    return SuiteRow(
        id=suite.id,
        pool=suite.pool,
        ordinal=suite.version,
        artifact=artifact,
        items=len(suite.items),
        created_at=now,
        retired_at=None,
    )


def _read(artifacts: ArtifactStore, artifact: str, checkpoint_id: str, key: str) -> Evaluation:
    items = records_from_lines(artifacts.open_lines(artifact, ITEMS))
    if not items:
        raise EmptyEvaluation(f"the record of {checkpoint_id} in artifact {artifact} has no items: test it again.")
    return Evaluation(checkpoint_id=checkpoint_id, key=RecordKey.model_validate_json(key), items=items)


_cached = lru_cache(maxsize=CACHED_RECORDS)(_read)
