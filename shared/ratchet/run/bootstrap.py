"""The first run: suites, the base model as checkpoint 0, the champion and the line. The second time: nothing."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from typing import Any

from ratchet.artifacts import Artifact, ArtifactStore, weights_digest
from ratchet.evaluation.build_suites import build_suites, updated_suites
from ratchet.evaluation.load_evaluation import load_suite, suite_row
from ratchet.evaluation.suite import POOLS, Suite
from ratchet.events.catalogue import CheckpointSaved
from ratchet.inference.facts import model_facts
from ratchet.ledger import Ledger, Transaction, deployments
from ratchet.ledger.lineage import MAIN, checkpoint_id
from ratchet.ledger.suites import current
from ratchet.ledger.tables import CheckpointRow, LineageRow, LockedSettingRow, SuiteRow
from ratchet.plugins import require_plugins
from ratchet.processes.child_runner import ChildRunner
from ratchet.run.locking import facts_to_lock, require_unchanged
from ratchet.settings import Settings

log = logging.getLogger(__name__)

Prepare = Callable[[Settings, dict[str, Any]], object]
"""Puts the base model into the folder that a spec names (see ratchet.run.base_model)."""


_PREPARE = "ratchet.run.base_model:prepare_base_model"


def prepared_in_child(settings: Settings, spec: dict[str, Any]) -> object:
    """The usual way: in a child process, since it needs torch."""
    settings.log_folder.mkdir(parents=True, exist_ok=True)
    with ChildRunner() as children:
        return children.run(_PREPARE, spec, log_path=settings.log_folder / "bootstrap.child.log")


def bootstrap(
    settings: Settings, ledger: Ledger, artifacts: ArtifactStore, prepare: Prepare = prepared_in_child
) -> bool:
    """Set up an empty ledger; returns whether there was anything to do. Raises SettingsError for a wrong base model.

    On a ledger that is set up, the settings that were locked at the first run are compared instead; and where families
    or levels were added or taken away since, the suites' next versions come into force.
    """
    require_plugins(settings)
    with ledger.read() as session:
        is_set_up = session.get(LineageRow, MAIN) is not None
        locked = {row.name: row.value for row in session.query(LockedSettingRow)}
    if is_set_up:
        require_unchanged(settings, locked)
        renew_suites(settings, ledger, artifacts)
        return False
    suites = _published(list(build_suites(settings.suites).values()), artifacts)
    model, facts = _publish_base(settings, artifacts, prepare)
    with ledger.write() as tx:
        if tx.session.get(LineageRow, MAIN) is None:
            tx.session.add_all(suite_row(suite, artifact.id, tx.now) for suite, artifact in suites)
            _record_base(tx, model)
            tx.session.add_all(
                LockedSettingRow(name=name, value=value, locked_at=tx.now) for name, value in facts.items()
            )
    return True


def renew_suites(settings: Settings, ledger: Ledger, artifacts: ArtifactStore) -> None:
    """Retire the suites that hold other families or levels than the settings name, and publish their successors.

    A worn confirm suite stays as worn: its uses go over to the next version.
    """
    with ledger.read() as session:
        rows = {pool: current(session, pool) for pool in POOLS}
    suites = updated_suites(settings.suites, {pool: load_suite(artifacts, row) for pool, row in rows.items()})
    if not suites:
        return
    published = _published(list(suites.values()), artifacts)
    with ledger.write() as tx:
        if any(current(tx.session, pool).id != row.id for pool, row in rows.items()):
            return
        tx.session.add_all(suite_row(suite, artifact.id, tx.now) for suite, artifact in published)
        tx.session.flush()
        for suite, _ in published:
            old = tx.session.get_one(SuiteRow, rows[suite.pool].id)
            old.retired_at = tx.now
            tx.session.get_one(SuiteRow, suite.id).uses = old.uses
    for suite, _ in published:
        log.info(
            "%s suite: version %d, since other levels are named; it has %d items",
            suite.pool,
            suite.version,
            len(suite.items),
        )


def _published(suites: list[Suite], artifacts: ArtifactStore) -> list[tuple[Suite, Artifact]]:
    return [
        (suite, artifacts.publish_lines(suite.to_lines(), "suite", {"pool": suite.pool, "suite": suite.id}))
        for suite in suites
    ]


def _publish_base(settings: Settings, artifacts: ArtifactStore, prepare: Prepare) -> tuple[Artifact, dict[str, str]]:
    folder = settings.work_folder / "base"
    shutil.rmtree(folder, ignore_errors=True)
    spec: dict[str, Any] = {
        "model": settings.model.path,
        "tokenizer": settings.model.tokenizer_path,
        "folder": str(folder),
    }
    prepare(settings, spec)
    facts = facts_to_lock(settings, model_facts(folder))
    provenance = {"base_model": settings.model.path}
    return artifacts.publish(folder, "checkpoint", provenance, consume=True), facts


def _record_base(tx: Transaction, model: Artifact) -> None:
    """Checkpoint 0: champion, live from the start, and the head of the line."""
    weights = weights_digest(model.manifest)
    base = CheckpointRow(
        id=checkpoint_id(0, weights),
        ordinal=0,
        parent_id=None,
        batch_id=None,
        step=0,
        tokens=0,
        weights=weights,
        artifact=model.id,
        state_artifact=None,
        size_bytes=model.size_bytes,
        created_at=tx.now,
    )
    tx.session.add(base)
    tx.session.flush()
    tx.session.add(
        LineageRow(name=MAIN, head_id=base.id, fresh_optimizer=True, running_batch_id=None, updated_at=tx.now)
    )
    deployments.begin(tx, base.id)
    tx.emit(CheckpointSaved(checkpoint_id=base.id, step=0))
