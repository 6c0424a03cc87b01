"""The checkpoints of a made-up ledger: what the judges conclude from their answers, and deployments.

The conclusions come from the systems' own pure functions, so that the JSON columns have their real shapes. These take a
while, so in a long history neighbouring checkpoints share their numbers. The checkpoints have no files.
"""

from __future__ import annotations

from collections import Counter
from itertools import islice
from math import exp
from typing import Any

from datagen.bandit import Trial, conclude
from datagen.mix import plan
from datagen.strategies import LearnerState, Mastery, update_mastery
from evaluator.calibration_fit import calibrate
from evaluator.ranking import Board, Cost, tally
from evaluator.regression_verdict import judge_regression
from miner.mined_items import FollowUp, MinedItem
from ratchet.data.example import Example
from ratchet.evaluation.load_evaluation import ITEMS
from ratchet.evaluation.record import (
    Evaluation,
    ItemRecord,
    level_rates,
    mastered_levels,
    rates_to_json,
    scores_in_words,
    task_scores,
)
from ratchet.evaluation.suite import POOLS, Pool
from ratchet.events import catalogue as events
from ratchet.gate.decision import decide
from ratchet.gate.screen import screen
from ratchet.ledger import tables
from ratchet.settings.data import CurriculumSettings
from ratchet.settings.judging import GateSettings, RegressionSettings, SuiteSettings
from ratchet.stats.proportions import newcombe

from tests.support.synthetic_answers import TASK_ITEMS, TASKS, Answers, dips
from tests.support.synthetic_rows import Rows

SIZE_BYTES = 496_595
STEPS, TOKENS = 28, 18_000
"""Of training from one checkpoint to the next."""


class Models:
    """``saved_because`` has the event that led to a checkpoint, by its number."""

    def __init__(self, rows: Rows):
        self.rows, self.ids, self.count = rows, rows.ids, rows.size.checkpoints
        self.answers = Answers(rows)
        self.suites = self.answers.suites
        self.saved_because: dict[int, str] = {}
        self.champion = 0
        self._evaluated_because: dict[int, str] = {}
        self._evaluations: dict[tuple[int, Pool], Evaluation] = {}
        self._scores: dict[int, float] = {}
        self._board, self._mastery = Board(), Mastery()
        self._trials: list[Trial] = []
        self._challenges: Counter[int] = Counter()
        self._promotions = 0
        step = max(2, self.count // 30)
        self._challengers = range(step, self.count - 2, step)
        self._readable = {0, 3, 4, 5, *range(self.count - 8, self.count)}

    def tell(self) -> None:
        """All checkpoints in their order, then the rankings and the state of serving."""
        self._publish_suites()
        for i in range(self.count):
            self._checkpoint(i)
        self._ranked()
        self._served()

    def _publish_suites(self) -> None:
        for pool, suite in self.suites.items():
            artifact = self.rows.publish(suite.to_lines(), "suite", {"suite": suite.id})
            named = {"id": suite.id, "pool": pool, "ordinal": 0, "artifact": artifact, "items": len(suite.items)}
            uses = len(self._challengers) if pool == "confirm" else 0
            self.rows.add(tables.SuiteRow, **named, uses=uses, created_at=self.rows.start - 60)

    def evaluation(self, i: int, pool: Pool) -> Evaluation:
        if (i, pool) not in self._evaluations:
            self._evaluations[i, pool] = self.answers.drawn(i, pool)
            self._record(i, pool, self._evaluations[i, pool])
        return self._evaluations[i, pool]

    def _record(self, i: int, pool: Pool, found: Evaluation) -> None:
        """The ledger's row of an evaluation, as testing stores it."""
        suite, rates, grades = self.suites[pool].id, level_rates(found.items), tally(found)
        if pool == "eval":
            self._board.add(grades)
            self._scores[i] = grades.selection_score
        about = {"checkpoint": self.ids[i], "suite": suite, "pool": pool}
        artifact = self.rows.digest("record", i, pool)
        if i in self._readable:
            artifact = self.rows.publish((item.model_dump_json() for item in found.items), "record", about, ITEMS)
        self.rows.add(
            tables.EvaluationRow,
            id=f"{self.ids[i]}/{suite}",
            checkpoint_id=self.ids[i],
            suite_id=suite,
            pool=pool,
            key=found.key.model_dump(),
            artifact=artifact,
            items=len(found.items),
            correct=sum(rate.correct for rate in rates.values()),
            by_level=rates_to_json(rates),
            scores={name: score.model_dump() for name, score in task_scores(found.items).items()},
            tokens_per_s=1_800.0 + i % 50,
            tally=grades.model_dump(mode="json"),
            created_at=self.rows.at(i) + 60,
        )

    def _checkpoint(self, i: int) -> None:
        rows, id, at, batch = self.rows, self.ids[i], self.rows.at(i), self.rows.batch_of.get(i)
        broken = rows.free("all of its answers are the same token") if is_broken(i) else ""
        is_deleted = not broken and i % 3 == 1 and i < self.count - 8
        batch_id = rows.batch_ids[batch] if batch is not None else None
        trained: dict[str, Any] = {}
        if i:
            loss = 0.05 + 2.5 * exp(-4 * i / self.count)
            trained = {"parent_id": self.ids[i - 1], "state_artifact": rows.digest("state", i), "train_loss": loss}
        rows.add(
            tables.CheckpointRow,
            id=id,
            ordinal=i,
            batch_id=batch_id,
            offset=300 if i else 0,
            step=STEPS * i,
            tokens=TOKENS * i,
            weights=rows.digest("weights", i),
            artifact=rows.digest("model", i),
            size_bytes=SIZE_BYTES,
            tokens_per_s=19_000.0 if i else None,
            save_s=0.05,
            state="broken" if broken else "deleted" if is_deleted else "saved",
            reason=broken,
            degenerate=broken or None,
            created_at=at,
            **trained,
        )
        cause = self.saved_because.get(i)
        saved = rows.event(events.CheckpointSaved, at, cause, checkpoint_id=id, step=STEPS * i, batch_id=batch_id)
        if broken:
            rows.verdict("testing", f"checkpoint {id}", "broken", broken, {"degenerate": broken}, at + 60, saved)
            rows.event(events.CheckpointBroken, at + 60, saved, checkpoint_id=id, reason=broken)
        elif i < self.count - 1:
            self._judged(i, at + 60, saved)

    def _judged(self, i: int, at: float, saved: str) -> None:
        id, pools, told, errors = self.ids[i], ("probe", "eval"), {}, {}
        for pool in POOLS[:2]:
            items = self.evaluation(i, pool).items
            errors[pool] = dict(Counter(item.error for item in items if item.error).most_common())
            right, n = sum(bool(item.correct) for item in items), sum(item.correct is not None for item in items)
            scores = {name: score.model_dump() for name, score in task_scores(items).items()}
            told[pool] = ", ".join([f"{right} of {n} right", *scores_in_words(scores)])
        numbers = {"results": told, "errors": errors, "degenerate": None}
        words = "; ".join(f"{pool}: {result}" for pool, result in told.items())
        self.rows.verdict("testing", f"checkpoint {id}", "evaluated", words, numbers, at, saved)
        cause = self.rows.event(events.CheckpointEvaluated, at, saved, checkpoint_id=id, pools=pools)
        self._evaluated_because[i] = cause
        self._regression(i, at + 3, cause)
        self._calibration(i, at + 4, cause)
        self._curriculum(i, at + 5, cause)
        self._mined(i, at + 6, cause)
        self._deployment(i, at + 30, cause)

    def _regression(self, i: int, at: float, cause: str) -> None:
        id, numbers, severity, reason, baseline_id = self.ids[i], {}, "none", "It is the champion itself.", None
        if i:
            best = max((n for n in self._scores if n < i), key=lambda n: (self._scores[n], n))
            own, live, before = (self.evaluation(n, "eval") for n in (i, self.champion, best))
            made = self.rows.shared(
                f"regression {dips(i)}", i, lambda: judge_regression(own, live, before, RegressionSettings())
            )
            numbers, baseline_id = {**made.model_dump(mode="json"), "checkpoint_id": id}, self.ids[self.champion]
            severity, reason = made.severity, made.reason
        is_worse = severity != "none"
        outcome = "regressed" if is_worse else "cleared"
        fields = {"checkpoint_id": id, "severity": severity}
        self.rows.add(tables.RegressionRow, **fields, baseline_id=baseline_id, numbers=numbers, created_at=at)
        self.rows.verdict("regression", f"checkpoint {id}", outcome, reason, numbers, at, cause)
        self.rows.event(events.CheckpointRegressed if is_worse else events.CheckpointCleared, at, cause, **fields)

    def _calibration(self, i: int, at: float, cause: str) -> None:
        found = self.rows.shared(f"calibration {i == 0}", i, lambda: calibrate(self.evaluation(i, "eval"))).model_dump(
            mode="json"
        )
        numbers, id, outcome = {**found, "checkpoint_id": self.ids[i]}, self.ids[i], "uncalibrated"
        reason = f"No confidence is stated: {found.get('reason')}."
        if found["shipped"]:
            raw, tempered, outcome = found["raw"], found["tempered"], "calibrated"
            reason = f"ECE {raw['ece']:.3f}, at temperature {found['temperature']:.2f} {tempered['ece']:.3f}."
        shipped = found["shipped"] or {}
        self.rows.add(tables.CalibrationRow, checkpoint_id=id, shipped=shipped, numbers=numbers, created_at=at)
        self.rows.verdict("calibration", f"checkpoint {id}", outcome, reason, numbers, at, cause)
        self.rows.event(events.CheckpointCalibrated, at, cause, checkpoint_id=id)

    def _curriculum(self, i: int, at: float, cause: str) -> None:
        """The mix after a checkpoint, and its trial."""
        settings, number = CurriculumSettings(), len(self.rows.table[tables.CurriculumRow]) + 1
        self._mastery = update_mastery(self._mastery, level_rates(self.evaluation(i, "probe").items), settings.mastery)
        numbers: dict[str, Any] = self._trial(i, at)
        levels = {family.name: family.levels for family in SuiteSettings().families}

        def made() -> dict[str, Any]:
            experiment = conclude(self._trials, settings, has_mastered=self._mastery.any)
            whole = plan(LearnerState(levels, self._mastery, (), settings), experiment, {}, set())
            return {"mix": whole.mix.model_dump(mode="json"), **whole.model_dump(mode="json")}

        row, mastery = self.rows.shared("curriculum", i, made), self._mastery.model_dump(mode="json")
        mastered = ", ".join(f"{level.family} {level.level}" for level in self._mastery.levels if level.is_mastered)
        reason = f"mastered: {mastered or 'nothing yet'}; {row['mix']['strategy']} mix"
        self.rows.add(tables.CurriculumRow, id=number, **row, mastery=mastery, reason=reason, created_at=at)
        task = {"task": "menus", "items": TASK_ITEMS, "is_best": i % 3 == 0, "was_taught": True}
        numbers |= {"mix": row["mix"], "experiment": row["experiment"]}
        numbers["tasks"] = [{**task, "score_gain": 0.02, "loss_fall": 0.1}]
        self.rows.verdict("curriculum", f"checkpoint {self.ids[i]}", "changed", reason, numbers, at, cause)
        self.rows.event(events.CurriculumChanged, at, cause, curriculum_id=number)

    def _trial(self, i: int, at: float) -> dict[str, Any]:
        """The trial that ends with the checkpoint, as the curriculum's verdict shows it; empty before the first."""
        before = max((n for n in self._scores if n < i), default=None)
        if before is None:
            return {}
        arms = CurriculumSettings().strategies
        pairs = zip(self.evaluation(before, "probe").items, self.evaluation(i, "probe").items, strict=True)
        changes = Counter((one.correct, two.correct) for one, two in pairs if one.correct is not None)
        fields = {"checkpoint_id": self.ids[i], "before_id": self.ids[before], "arm": arms[i % len(arms)]}
        outcome = {"gains": changes[False, True], "losses": changes[True, False], "items": changes.total()}
        trial = Trial(**fields, **outcome, tokens=TOKENS, age=0)
        self._trials = [*(each.model_copy(update={"age": each.age + 1}) for each in self._trials[-60:]), trial]
        through = {"batches": [self.rows.batch_ids[self.rows.batch_of[i]]], "checkpoints": self.ids[before + 1 : i]}
        self.rows.add(tables.TrialRow, **fields, **outcome, tokens=TOKENS, through=through, created_at=at)
        return {"trial": trial.model_dump(mode="json")}

    def _mined(self, i: int, at: float, cause: str) -> None:
        """What the checkpoint got wrong on the probe."""
        rows, id, by_id = self.rows, self.ids[i], self.suites["probe"].by_id
        weak = [item for item in self.evaluation(i, "probe").items if item.error is not None][: 40 if i else 0]
        found = [_mined_item(item, by_id[item.item_id], n) for n, item in enumerate(weak)]
        again = FollowUp(
            checkpoint=self.ids[max(0, i - 1)],
            mined=40,
            mined_failed=18,
            random=40,
            random_failed=11,
            excess=newcombe(18, 40, 11, 40),
            by_category={"wrong": (12, 28), "forgotten": (6, 12)},
        )
        by_category = dict(Counter(item.category for item in found))
        numbers = {"by_category": by_category, "by_origin": dict(Counter(item.found_by for item in found))}
        yields = {"reverse/2 fresh": [9, 80], "reverse/2 near": [22, 60]} if i else {}
        numbers |= {"yields": yields, "asked": 140 if i else 0, "rows_asked": 20 if i else 0}
        numbers |= {"follow_up": again.model_dump(mode="json") if i else None}
        artifact = rows.digest("mined", i) if found else None
        if found and i in self._readable:
            artifact = rows.publish((item.model_dump_json() for item in found), "batch", {"mined_from": id})
        told = {"artifact": artifact, "count": len(found), "by_category": by_category, "numbers": numbers}
        rows.add(tables.MinedRow, checkpoint_id=id, **told, created_at=at)
        if not found:
            words = "no weak item near the frontier or among the training rows"
            rows.verdict("mining", f"checkpoint {id}", "nothing mined", words, numbers, at, cause)
            return
        words = ", ".join(f"{count} {category}" for category, count in sorted(by_category.items()))
        rows.verdict("mining", f"checkpoint {id}", "mined", words, numbers, at, cause)
        mined = rows.event(events.ExamplesMined, at, cause, checkpoint_id=id, count=len(found))
        if i % 3:
            words = "batches generated since the last corrections: 1 of 2"
            rows.verdict("correction", f"mined {id}", "not yet", words, {}, at + 1, mined)
            return
        made = {"by_error": {"reverse:wrong": 60}, "left_out": {"held out": 20}, "judged": 4, "backed_off": {}}
        made |= {"sampling": {"asked": 64, "verified": 9, "kept": 5}}
        words = "90 correction examples among 810 ordinary rows: 60 reverse:wrong"
        rows.verdict("correction", f"mined {id}", "submitted", words, made, at + 1, mined)

    def _deployment(self, i: int, at: float, cause: str) -> None:
        """A challenge of the champion now and then; the others are screened out or superseded."""
        if i == 0:
            self._changed("base", "setup", 0, None, "the base model is live from the start", {}, at)
            self.rows.event(events.CheckpointDeployed, at, cause, checkpoint_id=self.ids[0], previous_id=None)
            return
        if i in self._challengers or i == self.count - 2:
            self._challenge(i, at, cause)
            return
        both = self.evaluation(self.champion, "eval"), self.evaluation(i, "eval")
        found = self.rows.shared("screen", i, lambda: screen(*both, GateSettings())).model_dump(mode="json")
        if found["is_worth_opening"]:
            reason = f"{self.ids[i + 1]} is newer and ranks at least as high"
            self.rows.verdict("deployment", f"checkpoint {self.ids[i]}", "superseded", reason, {}, at, cause)
            return
        numbers = {**found, "champion": self.ids[self.champion], "challenger": self.ids[i]}
        self._refused(i, "screened out", found["reason"], numbers, at, cause)

    def _refused(self, i: int, outcome: str, reason: str, numbers: Any, at: float, cause: str) -> None:
        self.rows.verdict("deployment", f"checkpoint {self.ids[i]}", outcome, reason, numbers, at, cause)
        self.rows.event(events.DeploymentRefused, at, cause, checkpoint_id=self.ids[i], reason=self.rows.free(reason))

    def _challenge(self, i: int, at: float, cause: str) -> None:
        """The gate's decision; the newest challenge is still open."""
        holder, suite = self.champion, self.suites["confirm"].id
        for n in sorted({i, holder, 0}):
            if (n, "confirm") not in self._evaluations:
                asked = {"checkpoint_id": self.ids[n], "suite_id": suite}
                self.rows.add(tables.EvaluationRequestRow, **asked, requested_by="deployment", created_at=at)
                self.rows.event(events.EvaluationRequested, at, cause, **asked)
        self._challenges[holder] += 1
        k, pair = self._challenges[holder], {"champion_id": self.ids[holder], "challenger_id": self.ids[i]}
        row = self.rows.add(tables.ChallengeRow, **pair, k=k, suite_id=suite, numbers={}, created_at=at)
        if i not in self._challengers:
            return
        base, champion, challenger = (self.evaluation(n, "confirm") for n in (0, holder, i))
        screened = self.evaluation(holder, "eval"), self.evaluation(i, "eval")
        decision = decide(
            champion,
            challenger,
            k,
            mastered_levels(screened[0], GateSettings().mastery, 5),
            GateSettings(),
            smoke_passed=True,
            tasks=frozenset(TASKS) - {"letters"},
            base=base,
            screened=screened,
        )
        row["outcome"], row["numbers"] = decision.decision, decision.model_dump(mode="json")
        if decision.decision == "refuse":
            self._refused(i, "refused", decision.reason, row["numbers"], at, cause)
            return
        self._promotions += 1
        self._changed("deploy", "gate", i, holder, decision.reason, row["numbers"], at)
        self.rows.event(
            events.CheckpointDeployed, at + 1, cause, checkpoint_id=self.ids[i], previous_id=self.ids[holder]
        )
        self.champion, outcome, reason = i, "deployed", decision.reason
        if self._promotions == 2:
            self.champion, outcome, reason = holder, "rolled back", self._rolled_back(i, holder, at + 20, cause)
        self.rows.verdict("deployment", f"checkpoint {self.ids[i]}", outcome, reason, row["numbers"], at + 30, cause)

    def _rolled_back(self, i: int, holder: int, at: float, cause: str) -> str:
        """The reason. The operator then freezes deployments for a while."""
        free = self.rows.free
        reason = free("3 of 12 answers on the server differ from those that were judged")
        self._changed("rollback", "watch", holder, i, reason, {}, at)
        ids = {"checkpoint_id": self.ids[i], "to_checkpoint_id": self.ids[holder]}
        self.rows.event(events.DeploymentRolledBack, at, cause, **ids, reason=reason)
        block = {"weights": self.rows.digest("weights", i), "checkpoint_id": self.ids[i], "reason": reason}
        self.rows.add(tables.BlockRow, **block, created_at=at)
        self._changed("freeze", "operator", holder, None, free("the card is being replaced"), {}, at + 100)
        self._changed("unfreeze", "operator", holder, None, free("the card is back"), {}, at + 200)
        return reason

    def _changed(
        self, action: str, actor: str, i: int, previous: int | None, reason: str, numbers: Any, at: float
    ) -> None:
        told = {"action": action, "actor": actor, "checkpoint_id": self.ids[i], "reason": reason, "numbers": numbers}
        token = len(self.rows.table[tables.DeploymentRow]) + 1
        previous_id = self.ids[previous] if previous is not None else None
        self.rows.add(tables.DeploymentRow, **told, previous_id=previous_id, token=token, created_at=at)

    def _ranked(self) -> None:
        """The newest ranking is whole; of the others the best 20 are kept."""
        costs = {self.ids[i]: Cost(tokens_per_s=1_800, size_bytes=SIZE_BYTES) for i in self._scores}
        whole = self._board.rank(costs, costs).model_dump(mode="json")["entries"]
        places = {id: i for i, id in enumerate(self.ids)}
        entries = {places[entry["checkpoint_id"]]: entry for entry in whole}
        for number, i in enumerate(sorted(self._scores), start=1):
            at, so_far = self.rows.at(i) + 63, list(islice((e for n, e in entries.items() if n <= i), 20))
            fields = {"best_checkpoint_id": so_far[0]["checkpoint_id"]}
            kept = {"entries": whole if number == len(self._scores) else so_far}
            self.rows.add(tables.RankingRow, id=number, **fields, entries=kept, created_at=at)
            cause = self._evaluated_because[i]
            tied = " (tied with the best)" if entries[i]["is_tied_with_best"] else ""
            reason = f"rank {entries[i]['rank']} of {len(whole)}{tied}"
            self.rows.verdict("comparison", f"checkpoint {self.ids[i]}", "ranked", reason, entries[i], at, cause)
            self.rows.event(events.RankingChanged, at, cause, ranking_id=number, **fields)

    def _served(self) -> None:
        now, live = self.rows.now, self.ids[self.champion]
        canary = {"canary_id": live, "canary_passed": True, "canary_difference": 1.7e-06, "canary_at": now - 600}
        previous_id, since_at = self.ids[0] if self.champion else None, self.rows.at(self.champion) + 90
        served = {"desired_id": live, "actual_id": live, "actual_at": now - 5, "previous_id": previous_id}
        self.rows.add(tables.ServingRow, name="main", **served, **canary, since_at=since_at)


def is_broken(i: int) -> bool:
    return i % 29 == 7


def _mined_item(item: ItemRecord, example: Example, n: int) -> MinedItem:
    return MinedItem(
        example=example,
        key=item.key,
        category=("wrong", "overconfident_wrong", "forgotten")[n % 3],
        answer=item.answer,
        weakness=1 - n / 50,
        error=item.error,
        found_by="near" if n % 4 == 3 else "probe",
    )
