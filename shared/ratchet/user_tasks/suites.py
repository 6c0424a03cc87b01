"""The suites in force follow the settings and the tasks: when either changes, new versions take the place of the old.

A checkpoint that is still to be decided on, and the champion, are then tested on the new versions too, so that they can
be compared with what comes after them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Literal

from sqlalchemy.orm import Session

from ratchet.artifacts import ArtifactStore
from ratchet.data.example import Example
from ratchet.evaluation.build_suites import HeldRows, updated_suites
from ratchet.evaluation.load_evaluation import load_suite, suite_row
from ratchet.evaluation.suite import POOLS, Pool, Suite
from ratchet.ledger import Ledger
from ratchet.ledger.deployments import champion
from ratchet.ledger.lineage import MAIN
from ratchet.ledger.suites import current, request_on_current, undecided
from ratchet.ledger.tables import LineageRow, SuiteRow
from ratchet.settings import Settings
from ratchet.user_tasks.task import Task, all_tasks

log = logging.getLogger(__name__)

SOURCE = "task"
"""``metadata.source`` of held-out rows of tasks, which tells them from items that were drawn from families."""


def held_out_rows(session: Session, artifacts: ArtifactStore) -> dict[Pool, list[Example]]:
    """The held-out rows of all tasks by pool, labelled as their tasks are now."""
    held: dict[Pool, list[Example]] = {pool: [] for pool in POOLS}
    for row in all_tasks(session):
        task = Task.of(row)
        for pool in POOLS:
            if pool not in row.held_out:
                continue
            for line in artifacts.open_lines(row.held_out[pool]):
                item = task.labelled(Example.model_validate_json(line))
                held[pool].append(item.model_copy(update={"metadata": {**item.metadata, "source": SOURCE}}))
    return held


def publish_rows(artifacts: ArtifactStore, rows: Sequence[Example], kind: Literal["suite", "batch"]) -> str:
    """The id of an artifact with these rows, a line each."""
    return artifacts.publish_lines([row.to_line() for row in rows], kind, {}).id


def publish_suites(suites: list[Suite], artifacts: ArtifactStore) -> list[tuple[Suite, str]]:
    """Publish suites; returns each with the id of its artifact."""
    return [
        (suite, artifacts.publish_lines(suite.to_lines(), "suite", {"pool": suite.pool, "suite": suite.id}).id)
        for suite in suites
    ]


def renew_suites(settings: Settings, ledger: Ledger, artifacts: ArtifactStore) -> None:
    """Retire suites that differ from the settings or the tasks, and publish their successors.

    The uses of a confirm suite are carried over to its next version. Before the first run there are no suites yet, and
    nothing is done.
    """
    with ledger.read() as session:
        if session.get(LineageRow, MAIN) is None:
            return
        rows = {pool: current(session, pool) for pool in POOLS}
        own: HeldRows = held_out_rows(session, artifacts)
    suites = updated_suites(settings.suites, {pool: load_suite(artifacts, row) for pool, row in rows.items()}, own)
    if not suites:
        return
    published = publish_suites(list(suites.values()), artifacts)
    with ledger.write() as tx:
        if any(current(tx.session, pool).id != row.id for pool, row in rows.items()):
            return  # another process has renewed them
        tx.session.add_all(suite_row(suite, artifact, tx.now) for suite, artifact in published)
        tx.session.flush()
        for suite, _ in published:
            old = tx.session.get_one(SuiteRow, rows[suite.pool].id)
            old.retired_at = tx.now
            tx.session.get_one(SuiteRow, suite.id).uses = old.uses
        tx.session.flush()
        for checkpoint_id in (champion(tx.session).id, *undecided(tx.session)):
            request_on_current(tx, checkpoint_id, "suites")
    for suite, _ in published:
        log.info("%s suite: version %d, with %d items", suite.pool, suite.version, len(suite.items))
