from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from ratchet.ledger import Ledger, health
from ratchet.ledger.correction_backoff import PATIENCE
from ratchet.ledger.tables import (
    BatchRow,
    CheckpointRow,
    CoverageRow,
    CurriculumRow,
    DeploymentRow,
    DrillRow,
    EvaluationRequestRow,
    EvaluationRow,
    MinedRow,
    RegressionRow,
    SuiteRow,
    TaskRow,
    VerdictRow,
    WorkerRow,
)
from ratchet.metrics.source_collector import LedgerSource, TimeLimitedCollector
from ratchet.settings import Settings
from ratchet.stats.proportions import wilson
from ratchet.systems.registry import systems
from sqlalchemy import delete, event, update

from tests.support.rows import measured_without_gain, verdict
from tests.support.scrape import Scrape
from tests.support.story import batch_id, checkpoint_id

Ask = Callable[..., Scrape]
"""Takes the ledger, and settings if they are not those of the fixture."""


@pytest.fixture
def ask(settings: Settings) -> Iterator[Ask]:
    collectors = []

    def asked(ledger: Ledger, changed: Settings = settings) -> Scrape:
        registry, collector = CollectorRegistry(), TimeLimitedCollector(LedgerSource(ledger, changed), limit_s=60.0)
        collectors.append(collector)
        registry.register(collector)
        return Scrape(generate_latest(registry).decode())

    yield asked
    for collector in collectors:
        collector.close()


def test_an_empty_ledger_is_up_and_has_nothing_waiting(ledger: Ledger, ask: Ask) -> None:
    found = ask(ledger)
    assert found["ratchet_ledger_up"] == 1
    assert found["ratchet_pending"] == found["ratchet_pending_oldest_seconds"] == 0
    assert found["ratchet_queue_examples"] == found["ratchet_dead_letters"] == 0
    assert found["ratchet_workers"] == found["ratchet_outbox_waiting"] == 0


def test_the_newest_mining_curriculum_and_coverage_are_exported(told: Ledger, ask: Ask) -> None:
    with told.write() as tx:
        for table in (MinedRow, CoverageRow, CurriculumRow):
            tx.session.execute(delete(table))
        tx.session.execute(delete(VerdictRow).where(VerdictRow.system == "correction"))
    before = ask(told)
    with pytest.raises(KeyError):
        before["ratchet_coverage_novelty_ratio"]
    follow_up = {"mined": 50, "mined_failed": 30, "random": 40, "random_failed": 10}
    with told.write() as tx:
        tx.session.add(
            MinedRow(
                checkpoint_id=checkpoint_id(5),
                count=14,
                by_category={"wrong": 10, "unstable": 4},
                numbers={"follow_up": follow_up},
                created_at=tx.now,
            )
        )
        numbers = {"entropy": 0.9, "novelty": 0.7}
        tx.session.add(CoverageRow(batch_id=batch_id(6), numbers=numbers, created_at=tx.now))
        arms = [{"name": "mixed", "share": 0.25}, {"name": "adaptive", "share": 0.75}]
        told_of = {"mix": {}, "mastery": {}, "reason": "", "created_at": tx.now}
        tx.session.add(CurriculumRow(experiment={"arms": arms}, **told_of))
        for place in range(PATIENCE):
            measured_without_gain(tx.session, f"vain{place}", "sums:carry")
    found = ask(told)
    assert found.value("ratchet_mined_items", category="unstable") == 4
    assert found.value("ratchet_mined_failed_again_ratio", of="mined") == 0.6
    assert found.value("ratchet_mined_failed_again_ratio", of="random") == 0.25
    assert found["ratchet_correction_backed_off_classes"] == 1
    assert (found["ratchet_coverage_entropy_ratio"], found["ratchet_coverage_novelty_ratio"]) == (0.9, 0.7)
    assert found.value("ratchet_curriculum_share_ratio", strategy="adaptive") == 0.75


def test_the_queue_is_exported_by_place_and_time_left(told: Ledger, ask: Ask) -> None:
    found = ask(told)
    assert found.value("ratchet_queue_examples", place="submitted") == 8000
    assert found.value("ratchet_queue_examples", place="queued") == 8000
    assert found.value("ratchet_queue_examples", place="running") == 4800
    assert found.value("ratchet_batches", state="training") == 1
    assert found["ratchet_queue_low_water_examples"] == 13_000
    assert found["ratchet_queue_short"] == 0
    with told.write() as tx:
        tx.session.execute(update(BatchRow).where(BatchRow.examples > 0).values(tokens=8000 * 25))
    assert ask(told)["ratchet_queue_tokens"] == 20_800 * 25
    assert ask(told)["ratchet_queue_left_seconds"] == pytest.approx(20_800 * 25 / 18_500)


def test_an_empty_queue_is_short_and_how_long_it_lasts_is_unknown_before_training(ledger: Ledger, ask: Ask) -> None:
    found = ask(ledger)
    assert found["ratchet_queue_short"] == 1
    assert "ratchet_queue_left_seconds" not in found.names()


@pytest.mark.parametrize("settings", [{"families": []}, {}], indirect=True)
def test_tasks_tell_whether_they_are_used_up(ledger: Ledger, ask: Ask, settings: Settings) -> None:
    fields = {"kind": "user", "metric": "loss", "grader": None, "pattern": None, "source": "f", "held_out": {}}
    times = {"created_at": 1.0, "updated_at": 1.0, "rows": 9, "held_rows": 3}
    with ledger.write() as tx:
        tx.session.add(TaskRow(name="menus", passes=7.5, state="used_up", **fields, **times))
        tx.session.add(TaskRow(name="mail", passes=1.0, state="active", **fields, **times))
    found = ask(ledger)
    assert [found.value("ratchet_task_used_up", task=name) for name in ("menus", "mail")] == [1, 0]
    assert found.value("ratchet_task_passes", task="menus") == 7.5
    assert found["ratchet_supply_used_up"] == 0
    with ledger.write() as tx:
        tx.session.get_one(TaskRow, "mail").state = "used_up"
    assert ask(ledger)["ratchet_supply_used_up"] == (not settings.suites.families)
    assert ask(ledger)["ratchet_queue_short"] == bool(settings.suites.families)


def test_the_oldest_pending_subject_is_exported_by_system(told: Ledger, ask: Ask) -> None:
    with told.write() as tx:
        tx.session.execute(
            delete(VerdictRow).where(VerdictRow.system == "regression", VerdictRow.subject_id == checkpoint_id(2))
        )
        tx.session.execute(
            update(EvaluationRow).where(EvaluationRow.checkpoint_id == checkpoint_id(2)).values(created_at=tx.now - 900)
        )
        tx.session.execute(update(BatchRow).where(BatchRow.state == "submitted").values(submitted_at=tx.now - 500))
    found = ask(told)
    assert found.value("ratchet_pending", system="regression") == 1
    assert 900 <= found.value("ratchet_pending_oldest_seconds", system="regression") < 2000
    assert found.value("ratchet_pending_oldest_seconds", system="calibration") == 0
    assert 500 <= found.value("ratchet_pending_oldest_seconds", system="correction") < 2000
    assert found.value("ratchet_pending", system="training") == 2
    assert found.value("ratchet_pending", system="deployment") == 1


def test_the_base_model_is_not_pending_for_deployment(told: Ledger, ask: Ask) -> None:
    with told.write() as tx:
        tx.session.execute(delete(VerdictRow).where(VerdictRow.subject_id == checkpoint_id(0)))
    found = ask(told)
    assert found.value("ratchet_pending", system="deployment") == 1
    assert found.value("ratchet_pending", system="comparison") == 1


def test_tasks_of_other_metrics_and_the_drift_from_the_base_are_exported(told: Ledger, ask: Ask) -> None:
    def stored(metric: str, mean: float) -> dict[str, Any]:
        return {"metric": metric, "items": 9, "n": 9, "mean": mean, "low": mean, "high": mean}

    before = ask(told)
    assert not {"ratchet_task_loss_nats", "ratchet_general_drift_nats"} & before.names()
    with told.write() as tx:
        for ordinal, loss, general in ((0, 2.5, 0.6), (3, 1.75, 0.7)):
            scores = {
                "menus": stored("loss", loss),
                "letters": stored("judge", 0.5),
                "general": stored("loss", general),
            }
            chosen = (EvaluationRow.checkpoint_id == checkpoint_id(ordinal), EvaluationRow.pool == "eval")
            tx.session.execute(update(EvaluationRow).where(*chosen).values(scores=scores))
    found = ask(told)
    assert found.value("ratchet_task_loss_nats", role="champion", task="menus") == 1.75
    assert found.value("ratchet_task_preference_ratio", role="champion", task="letters") == 0.5
    assert found.value("ratchet_general_drift_nats", role="champion") == pytest.approx(0.1)


def test_accuracy_has_its_interval_for_newest_and_champion(told: Ledger, ask: Ask) -> None:
    found, interval = ask(told), wilson(41, 50)
    third = {"role": "newest", "family": "chain_sum", "level": "3"}
    assert found.value("ratchet_accuracy_ratio", **third) == 0.82
    assert found.value("ratchet_accuracy_low_ratio", **third) == pytest.approx(interval.low)
    assert found.value("ratchet_accuracy_high_ratio", **third) == pytest.approx(interval.high)
    assert found.value("ratchet_accuracy_items", **third) == 50
    assert found.value("ratchet_accuracy_overall_ratio", role="champion") == pytest.approx(129 / 300)
    assert found.value("ratchet_checkpoint_info", role="champion", checkpoint=checkpoint_id(3)) == 1


def test_calibration_and_regressions_are_exported(told: Ledger, ask: Ask) -> None:
    with told.write() as tx:
        values = {"severity": "critical", "created_at": tx.now}
        tx.session.execute(
            update(RegressionRow).where(RegressionRow.checkpoint_id == checkpoint_id(4)).values(**values)
        )
    found = ask(told)
    assert found.value("ratchet_calibration_ece_ratio", role="newest", kind="raw") == 0.06
    assert found.value("ratchet_calibration_ece_ratio", role="newest", kind="tempered") == 0.04
    assert found.value("ratchet_calibration_temperature", role="champion") == 1.1
    assert found.value("ratchet_regressions_total", severity="critical") == 1
    assert found.value("ratchet_regressions_total", severity="none") == 5
    assert found.value("ratchet_regression_timestamp_seconds", severity="critical") > 1e9
    assert found.value("ratchet_regression_timestamp_seconds", severity="warning") == 0


def test_the_served_checkpoint_is_exported(told: Ledger, ask: Ask) -> None:
    found = ask(told)
    assert found["ratchet_champion_ordinal"] == 3
    assert 145 <= found["ratchet_champion_age_seconds"] < 2000
    assert found["ratchet_served_is_champion"] == 1
    assert found["ratchet_deployment_frozen"] == 0
    assert found["ratchet_canary_passed"] == 1
    assert found["ratchet_canary_difference"] == 2e-6
    assert found["ratchet_canary_timestamp_seconds"] > 1e9
    assert found.value("ratchet_deployments_total", action="deploy") == 2
    assert found.value("ratchet_deployments_total", action="rollback") == 0
    with told.write() as tx:
        tx.session.add(
            DeploymentRow(
                action="rollback",
                actor="watch",
                checkpoint_id=checkpoint_id(1),
                previous_id=checkpoint_id(3),
                reason="the canary differs",
                numbers={},
                token=9,
                created_at=tx.now,
            )
        )
    assert ask(told).value("ratchet_deployment_timestamp_seconds", action="rollback") > 1e9


def test_the_training_lineage_is_exported(told: Ledger, ask: Ask) -> None:
    found = ask(told)
    assert found["ratchet_checkpoint_newest_ordinal"] == 5
    assert found["ratchet_checkpoint_newest_step"] == 1250
    assert found["ratchet_training_paused"] == 0
    assert found["ratchet_training_segment_max_seconds"] == 900
    assert found.value("ratchet_claims_held", system="training") == 1
    assert found.value("ratchet_claim_oldest_seconds", system="training") >= 20


def test_a_missing_worker_ages_and_a_stopped_one_does_not(told: Ledger, ask: Ask) -> None:
    with told.write() as tx:
        tx.session.execute(update(WorkerRow).where(WorkerRow.system == "testing").values(seen_at=tx.now - 600))
        tx.session.execute(update(WorkerRow).where(WorkerRow.system == "training").values(state="stopped"))
    found = ask(told)
    assert 600 <= found.value("ratchet_worker_unseen_seconds", system="testing", host="box") < 2000
    assert found.value("ratchet_workers", system="testing") == 0
    assert found.value("ratchet_workers", system="deployment") == 1
    with pytest.raises(KeyError):
        found.value("ratchet_worker_unseen_seconds", system="training")


def test_failures_waits_and_damage_are_exported_while_they_last(told: Ledger, ask: Ask) -> None:
    found = ask(told)
    assert found["ratchet_artifacts_damaged"] == 0
    assert not {"ratchet_worker_failures", "ratchet_worker_waits"} & found.names()
    with told.write() as tx:
        failed = {"state": "failed", "failures": 4, "error": "no module"}
        tx.session.execute(update(WorkerRow).where(WorkerRow.system == "testing").values(**failed))
        waits = {"state": "waiting", "error": "no suite"}
        tx.session.execute(update(WorkerRow).where(WorkerRow.system == "deployment").values(**waits))
        for _ in range(2):
            health.record_damage(tx, "ab" * 32, "it is damaged", "testing", "checkpoint", "c1", "it waits")
    found = ask(told)
    assert found.value("ratchet_worker_failures", system="testing", host="box") == 4
    assert found.value("ratchet_worker_waits", system="deployment", host="box") == 1
    assert found.value("ratchet_workers", system="testing") == 0
    assert found["ratchet_artifacts_damaged"] == 1
    with pytest.raises(KeyError):
        found.value("ratchet_worker_unseen_seconds", system="testing")
    with told.write() as tx:
        health.resolve_damage(tx, "testing", "checkpoint", "c1")
        tx.session.execute(update(WorkerRow).values(state="running", error=None, seen_at=tx.now))
    found = ask(told)
    assert found["ratchet_artifacts_damaged"] == 0
    assert not {"ratchet_worker_failures", "ratchet_worker_waits"} & found.names()


def test_dead_letters_outbox_and_requests_are_exported(told: Ledger, ask: Ask) -> None:
    with told.write() as tx:
        tx.session.add(
            EvaluationRequestRow(
                checkpoint_id=checkpoint_id(5), suite_id="confirm-1", requested_by="test", created_at=tx.now - 70
            )
        )
    found = ask(told)
    assert found.value("ratchet_dead_letters", system="mining") == 1
    assert {s.labels["system"] for s in found.samples if s.name == "ratchet_dead_letters"} == set(systems())
    assert found["ratchet_outbox_waiting"] > 10
    assert found["ratchet_request_oldest_seconds"] >= 70
    with told.write() as tx:
        tx.session.get_one(SuiteRow, "confirm-1").retired_at = tx.now
    assert ask(told)["ratchet_request_oldest_seconds"] == 0


def test_the_last_drill_is_exported_with_the_age_at_which_another_is_due(
    told: Ledger, ask: Ask, settings: Settings
) -> None:
    serving = settings.serving.model_copy(update={"drill_days": 7.0})
    found = ask(told, settings.model_copy(update={"serving": serving}))
    assert 120 <= found["ratchet_last_drill_age_seconds"] < 200
    assert found["ratchet_last_drill_age_limit_seconds"] == 7 * 86_400
    assert found["ratchet_last_drill_caught"] == 1
    with told.write() as tx:
        tx.session.execute(update(DrillRow).values(outcome="not caught"))
    found = ask(told)
    assert found["ratchet_last_drill_caught"] == 0
    assert found["ratchet_last_drill_age_seconds"] > 200, "it counts from the first run again"


def test_a_diverged_batch_is_exported_with_its_time(told: Ledger, ask: Ask) -> None:
    assert ask(told)["ratchet_training_quarantined_timestamp_seconds"] == 0
    with told.write() as tx:
        tx.session.get_one(BatchRow, batch_id(1)).state = "quarantined"
        tx.session.add(verdict("training", "batch", batch_id(1), "quarantined", tx.now, reason="the loss diverged"))
    assert ask(told)["ratchet_training_quarantined_timestamp_seconds"] > 1e9


def test_a_broken_checkpoint_is_not_pending(told: Ledger, ask: Ask) -> None:
    with told.write() as tx:
        tx.session.execute(delete(VerdictRow).where(VerdictRow.subject_id == checkpoint_id(5)))
        tx.session.execute(update(CheckpointRow).where(CheckpointRow.id == checkpoint_id(5)).values(state="broken"))
    found = ask(told)
    for judge in ("testing", "regression", "comparison", "calibration", "deployment"):
        assert found.value("ratchet_pending", system=judge) == 0


def test_an_unreachable_ledger_exports_only_that(settings: Settings, ask: Ask) -> None:
    away = Ledger("postgresql+psycopg://nobody@127.0.0.1:1/none?connect_timeout=2")
    found = ask(away)
    away.close()
    assert found.names() == {"ratchet_ledger_up"}
    assert found["ratchet_ledger_up"] == 0


def test_histories_are_read_again_only_after_a_change_while_ages_grow(told: Ledger, settings: Settings) -> None:
    with told.write() as tx:
        waits = VerdictRow.system == "regression", VerdictRow.subject_id == checkpoint_id(2)
        tx.session.execute(delete(VerdictRow).where(*waits))
    source, statements = LedgerSource(told, settings), list[str]()

    def read() -> dict[str, float]:
        statements.clear()
        return {
            f"{family.name} {sorted(sample.labels.items())}": sample.value
            for family in source.read()
            for sample in family.samples
        }

    @event.listens_for(told.engine, "before_cursor_execute")
    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    first, of_first = read(), len(statements)
    again, of_again = read(), len(statements)
    assert of_again < of_first / 2
    assert first.keys() == again.keys()
    labels = [("subjects", systems()["regression"].pending), ("system", "regression")]
    assert 0 < first[f"ratchet_pending_oldest_seconds {labels}"] < again[f"ratchet_pending_oldest_seconds {labels}"]
    with told.write() as tx:
        tx.session.add(verdict("regression", "checkpoint", checkpoint_id(2), "kept"))
    assert read()[f"ratchet_pending {labels}"] == first[f"ratchet_pending {labels}"] - 1
    assert len(statements) == of_first
