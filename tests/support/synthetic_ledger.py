"""A plausible history for an empty ledger, of any size, made in seconds: for tests and benchmarks of what shows one.

Batches, tasks and the state of the machines are here, checkpoints in synthetic_models. No model is trained or asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from miner.batch_coverage import Coverage, Row, measure
from miner.data_gate import GateReport, Quarantined, Reason
from miner.text_history import Novelty
from ratchet.artifacts import ArtifactStore
from ratchet.data.example import Example, Provenance
from ratchet.evaluation.preview import Preview
from ratchet.evaluation.suite import POOLS, Suite
from ratchet.events import catalogue as events
from ratchet.ledger import Ledger, tables
from ratchet.settings.data import CurriculumSettings
from ratchet.systems import registry
from ratchet.systems.system import Declaration
from ratchet.tasks import registry as families
from ratchet.tasks.graders import problem_of

from tests.support.synthetic_answers import TASK_ITEMS, TASKS
from tests.support.synthetic_models import STEPS, Models, is_broken
from tests.support.synthetic_rows import HOSTILE, OPEN, PACE_S, Rows, Size

__all__ = ["FULL", "HOSTILE", "SMALL", "Size", "build"]

SMALL = Size()
FULL = Size(checkpoints=1_000, batches=10_000, events=100_000, quarantined=1_000_000)
THOUSAND = Size(checkpoints=1_000, batches=20_000, events=5_000_000, quarantined=3_000_000)
"""A year of one machine: more of everything than any ledger has had so far."""

EXAMPLES = 900
"""Rows of a batch that pass the gate."""

BIG = 20
"""Batches that together have nine tenths of the rows in quarantine."""

READABLE = 50
"""Batches beside the big ones whose quarantine can be read; the files of the others do not exist."""

REASONS: tuple[Reason, ...] = ("gold", "duplicate", "leak", "too_long", "near_duplicate", "unreadable", "schema")
KINDS_OF_ROWS = 4 * len(REASONS)
LOCKED = {"base_model": "tiny", "model_path": "tiny", "suites.seed": "20261", "vocab_size": "337"}
COUNTED = {"rankings": tables.RankingRow, "curricula": tables.CurriculumRow}
TRACEBACK = 'Traceback (most recent call last):\n  File "testing.py", line 71, in do\nArtifactError: it is damaged'


def build(
    ledger: Ledger, artifacts: ArtifactStore | None, size: Size = SMALL, *, hostile: bool = False, seed: int = 0
) -> None:
    """Fill a migrated ledger that has no row, in one transaction; in a few more where there are very many events.

    With ``artifacts`` the suites can be read, and so can the records and mined items of some checkpoints, those of #3
    and #4 among them, and what some batches have in quarantine. With ``hostile`` all free text has HOSTILE text in it.
    """
    rows = Rows(ledger.now(), artifacts, size, hostile=hostile, seed=seed)
    models = Models(rows)
    _Batches(rows, models).tell()
    models.tell()
    _tasks(rows)
    _machines(rows, models.suites["probe"])
    _troubles(rows)
    rows.store(ledger)


class _Batches:
    """All batches, the oldest first. The newest ones are still open."""

    def __init__(self, rows: Rows, models: Models):
        self._rows, self._models = rows, models
        self._settled = rows.size.batches - len(OPEN)
        self._quarantine = [self._quarantined_row(n) for n in range(KINDS_OF_ROWS)]
        self._coverage = _coverage(models.suites["confirm"])
        self._levels = {f"{cell.family}/{cell.level}": cell.rows for cell in self._coverage.cells}

    def tell(self) -> None:
        for j in range(self._rows.size.batches):
            self._batch(j)

    def _state(self, j: int) -> str:
        """Trained where a checkpoint was saved from it."""
        if j >= self._settled:
            return OPEN[j - self._settled]
        if j in self._rows.saved_from:
            return "trained"
        state = {3: "rejected", 5: "stored", 6: "skipped", 7: "quarantined"}.get(j % 8, "trained")
        return "trained" if state == "rejected" and not self._quarantined(j) else state

    def _quarantined(self, j: int) -> int:
        """A few batches have nine tenths of the rows in quarantine, the others share the rest."""
        if j >= self._settled:
            return 0
        every, total = max(10, self._settled // BIG), self._rows.size.quarantined
        big = len(range(0, self._settled, every))
        each = total * 9 // 10 // big
        if j % every == 0:
            return each
        few, more = divmod(total - each * big, self._settled - big)
        return few + (j - j // every - 1 < more)

    def _quarantined_row(self, n: int) -> str:
        """A line of a quarantine file without its beginning, which is the row's number."""
        free, reason = self._rows.free, REASONS[n % len(REASONS)]
        row = Example.ask(free(f"{n}+{n}="), free(str(3 * n)), family="chain_sum", level=1, source=free("sums.csv"))
        detail = free(f"chain_sum:{n}+{n} was not accepted ({reason}).")
        example = None if reason == "unreadable" else row
        return Quarantined(line=0, reason=reason, detail=detail, example=example).to_line().partition(",")[2]

    def _quarantine_file(self, j: int, count: int) -> str | None:
        """The artifact that the gate makes of these rows."""
        if not count:
            return None
        if count < 1_000 and j % max(1, self._settled // READABLE):
            return self._rows.digest("quarantine", j)

        def lines() -> Iterator[str]:
            for n in range(count):
                yield f'{{"line":{j + 3 * n + 1},{self._quarantine[n % KINDS_OF_ROWS]}'

        about = {"batch": self._rows.batch_ids[j], "submitted": self._rows.digest("batch", j)}
        return self._rows.publish(lines(), "batch", about, "quarantine.jsonl")

    def _report(self, examples: int, quarantined: int) -> dict[str, Any]:
        kinds = Counter(REASONS[n % len(REASONS)] for n in range(quarantined % KINDS_OF_ROWS))
        kinds.update({reason: quarantined // KINDS_OF_ROWS * 4 for reason in REASONS if quarantined >= KINDS_OF_ROWS})
        levels, reasons = self._levels if examples else {}, dict(sorted(kinds.items()))
        rows, tokens = examples + quarantined, 20 * examples
        report = GateReport(rows=rows, accepted=examples, tokens=tokens, reasons=reasons, levels=levels)
        return report.model_dump(mode="json")

    def _batch(self, j: int) -> None:
        state, quarantined, artifact = self._state(j), self._quarantined(j), self._rows.digest("batch", j)
        at = self._rows.start + self._rows.size.checkpoints * PACE_S * j / self._rows.size.batches
        is_users = state in ("rejected", "stored", "skipped")
        origin = "user" if is_users else "correction" if j % 6 == 1 else "generation"
        examples = 0 if state in ("rejected", "submitted") else EXAMPLES
        is_taught = state in ("training", "trained", "skipped", "quarantined")
        report = self._report(examples, quarantined)
        self._rows.add(
            tables.BatchRow,
            id=self._rows.batch_ids[j],
            origin=origin,
            task=_task_of(j) if state == "stored" else None,
            state=state,
            priority=j % 3,
            submitted_artifact=artifact,
            artifact=artifact if examples else None,
            quarantine_artifact=self._quarantine_file(j, quarantined),
            submitted_examples=EXAMPLES + quarantined,
            examples=examples,
            tokens=20 * examples,
            quarantined=quarantined,
            offset={"trained": EXAMPLES, "training": 300, "skipped": 120}.get(state, 0),
            provenance=self._provenance(j, origin),
            report=report if state != "submitted" else {},
            submitted_at=at,
            queued_at=at + 5 if examples and state != "stored" else None,
            started_at=at + 60 if is_taught else None,
            finished_at=at + 400 if state in ("trained", "rejected", "skipped", "quarantined") else None,
        )
        cause = self._rows.event(events.BatchSubmitted, at, batch_id=self._rows.batch_ids[j])
        if origin == "generation":
            self._generated(j, at)
        if state in ("rejected", "stored"):
            self._kept(j, state, report, at + 5, cause)
        elif state != "submitted":
            self._queued(j, state, report, at + 5, cause)

    def _provenance(self, j: int, origin: str) -> dict[str, Any]:
        """Of a file, of corrections, of rows of users' tasks, or of generated problems."""
        fields: dict[str, Any] = {"generator": "tasks", "version": "2", "seed": j, "parents": (f"curriculum:{j}",)}
        told: dict[str, Any] = {"mix": {name: count / EXAMPLES for name, count in self._levels.items()}}
        told |= {"assignment": _assignment(j), "exhausted": []}
        if origin == "user":
            fields = {"generator": "file", "version": "2", "parents": (self._rows.free(f"rows-{j}.jsonl"),)}
            told = {"held_out": 12, "path": self._rows.free(f"/data/rows-{j}.jsonl")}
        elif origin == "correction":
            parents = (f"mined:{self._rows.ids[1]}", f"batch:{self._rows.batch_ids[0]}")
            fields = {"generator": "correction", "version": "2", "parents": parents}
            told = {"classes": {"reverse:wrong": 60, "chain_sum:carry": 30}, "cells": ["chain_sum/2", "reverse/2"]}
        elif j % 5 == 2:
            fields |= {"generator": "rows", "version": "1", "parents": ()}
            told = {"tasks": {"menus": {"rows": 700, "of": 400, "pass": 1 + j / 10}}, "replay": {"general": 200}}
        counts = {"correction": {"corrections": 90, "replay": 810}, "user": {}}.get(origin, self._levels)
        return {**Provenance(**fields, counts=counts).model_dump(mode="json"), **told}

    def _generated(self, j: int, at: float) -> None:
        """Of families, or a pass over users' rows."""
        if j % 5 == 2:
            numbers = {"made": {"menus/1": 700}, "generator": "rows", "replay": {"general": 200}, "took_s": 0.4}
            words = "700 rows of menus, pass 2 to 3; 200 of general replayed"
            self._rows.verdict("generation", f"pass {j}", "submitted", words, numbers, at)
            return
        assignment = _assignment(j)
        numbers = {
            "wanted": EXAMPLES,
            "made": self._levels,
            "exhausted": [],
            "refused": {"held_out": 41},
            "repeated": 7,
        }
        numbers |= {"cost": {"requests": 3, "prompt_tokens": 900, "answer_tokens": 400}, "generator": "tasks"}
        numbers |= {"assignment": assignment, "took_s": 2.5, "goes_on": False}
        words = f"{EXAMPLES} examples of the {assignment['arm']} mix, by tasks; refused: 41 held_out"
        self._rows.verdict("generation", f"refill {j + 1}", "submitted", words, numbers, at)

    def _kept(self, j: int, state: str, report: dict[str, Any], at: float, cause: str) -> None:
        """A user's rows, which are never trained on directly, or not at all."""
        id, file, words = self._rows.batch_ids[j], self._rows.free(f"rows-{j}.jsonl"), _words(report)
        kind = events.BatchRejected if state == "rejected" else events.BatchStored
        self._rows.event(kind, at, cause, batch_id=id, reason=self._rows.free(words), task=_task_of(j))
        self._rows.verdict("correction", f"batch {id}", state, words, report, at, cause)
        self._rows.verdict("correction", f"file {file}@{j}", "submitted", f"{EXAMPLES} rows of {file}", {}, at - 5)

    def _queued(self, j: int, state: str, report: dict[str, Any], at: float, cause: str) -> None:
        """The verdicts on a batch on its way to training."""
        rows, id, batch = self._rows, self._rows.batch_ids[j], f"batch {self._rows.batch_ids[j]}"
        queued = rows.event(events.BatchQueued, at, cause, batch_id=id)
        rows.verdict("correction", batch, "queued", _words(report), report, at, cause)
        numbers = {**self._coverage.model_dump(mode="json"), "novelty": round(0.4 + 0.6 / (1 + j % 9), 3)}
        rows.add(tables.CoverageRow, batch_id=id, numbers=numbers, created_at=at + 2)
        words = f"{EXAMPLES} rows, {numbers['distinct']} different, {numbers['novelty']:.0%} of them new; entropy 1.00"
        rows.verdict("diversity", batch, "measured", words, numbers, at + 2, queued)
        measured = rows.event(events.CoverageMeasured, at + 2, queued, batch_id=id)
        rows.verdict("curriculum", f"coverage {id}", "unchanged", "the mix stays", {}, at + 3, measured)
        if state == "queued":
            return
        started = rows.event(events.TrainingStarted, at + 55, queued, batch_id=id)
        if state == "quarantined":
            why = rows.free("loss 11.2 after 1.4, more than 3 times as much")
            rows.event(events.TrainingFailed, at + 300, started, batch_id=id, reason=why)
            words = f"the loss diverged: {why}"
            rows.verdict("training", batch, state, words, {"kind": "diverged"}, at + 300, started)
        elif state in ("trained", "skipped"):
            i = rows.saved_from.get(j, j * rows.size.checkpoints // rows.size.batches)
            done, origin = EXAMPLES if state == "trained" else 120, rows.table[tables.BatchRow][j]["origin"]
            words = f"{done} of {EXAMPLES} examples of {origin}, up to checkpoint {rows.ids[i]}"
            numbers = {"checkpoint": rows.ids[i], "origin": origin, "offset": done}
            rows.verdict("training", batch, state, words, numbers, at + 395, started)
            rows.event(events.TrainingFinished, at + 395, started, batch_id=id, checkpoint_id=rows.ids[i])
            if j in rows.saved_from:
                self._models.saved_because[i] = started
            if origin == "correction":
                self._impact(j, i)

    def _impact(self, j: int, i: int) -> None:
        """What a batch of corrections changed, in the two records after it."""
        last = self._rows.size.checkpoints - 2
        effect = {"error_class": "reverse:wrong", "items": 34, "before": 12, "after": 5, "gains": 8, "losses": 1}
        bounds = {"low": 0.04, "high": 0.36}
        numbers = {"impacts": [{**effect, "fall": {**bounds, "confidence": 0.95}}], "backed_off": {}}
        for n in range(max(1, i), min(i + 2, last)):
            if is_broken(n):
                continue
            at, ids = self._rows.at(n) + 70, (self._rows.batch_ids[j], self._rows.ids[n])
            fields = {"batch_id": ids[0], "checkpoint_id": ids[1], "baseline_id": self._rows.ids[max(0, i - 1)]}
            self._rows.add(tables.ImpactRow, **fields, **effect, **bounds, created_at=at)
            words = "reverse:wrong 12 -> 5 of 34 (fall +20.6 points, +4.0 to +36.0)"
            self._rows.verdict("correction", f"impact {ids[0]}/{ids[1]}", "measured", words, numbers, at)


def _task_of(j: int) -> str:
    return list(TASKS)[j % 3]


def _assignment(j: int) -> dict[str, Any]:
    arms = CurriculumSettings().strategies
    return {"arm": arms[j % len(arms)], "probability": 1 / len(arms)}


def _words(report: dict[str, Any]) -> str:
    refused = ", ".join(f"{count} {reason}" for reason, count in report["reasons"].items())
    return f"{report['accepted']} of {report['rows']} rows accepted" + (f"; quarantined: {refused}" if refused else "")


def _coverage(suite: Suite) -> Coverage:
    """Of a batch of such rows as are held out."""
    known = [(item, problem) for item in suite.items if (problem := problem_of(item)) is not None]
    rows = [Row(item, problem.key, families.get(problem.family).traits(problem)) for item, problem in known]
    wanted = {(problem.family, problem.level): 1 / 18 for _, problem in known}
    novelty = Novelty(compared=40, repeats=2, known=3, runs=800, new_runs=500)
    return measure(rows, wanted).model_copy(update={"texts": novelty})


def _tasks(rows: Rows) -> None:
    """A task of each metric, one of them used up, and the general one."""
    why = "the last 6 checkpoints were no better on its probe rows. Add rows: `ratchet data add FILE --task notes`."
    for name, metric in TASKS.items():
        taught = {"kind": "general"} if name == "general" else {"kind": "user", "passes": 4.5, "best_id": rows.ids[4]}
        end = {"state": "used_up", "reason": rows.free(why), "stale": 6} if name == "notes" else {}
        rows.add(
            tables.TaskRow,
            **{"passes": 0.0, "stale": 1, "state": "active", "reason": "", **taught, **end},
            name=name,
            metric=metric,
            grader="exact" if metric == "accuracy" else None,
            source=rows.free(f"/data/{name}.jsonl"),
            protected=name != "letters",
            version=1,
            held_out={pool: rows.digest(name, pool) for pool in POOLS},
            rows=400 + 3 * TASK_ITEMS,
            held_rows=3 * TASK_ITEMS,
            created_at=rows.start,
            updated_at=rows.now,
        )
    rows.verdict("generation", "end notes/2/1", "used up", why, {"passes": 4.5}, rows.now - 3_000)
    rows.event(events.TaskUsedUp, rows.now - 3_000, task="notes", reason=rows.free(why))
    uses = ({"key": f"chain_sum:{n}+{n + 1}", "uses": 1 + n % 8} for n in range(2 * rows.size.batches))
    rows.table[tables.UsageCountRow] += uses
    for n in range(16):
        generator, refill = (("teacher", "letters/3"), ("judge", rows.ids[3]))[n % 2]
        spent = {"requests": 4, "prompt_tokens": 2_100 + n, "answer_tokens": 640}
        rows.add(tables.SpendingRow, generator=generator, refill=refill, **spent, created_at=rows.now - 600 * n)


def _machines(rows: Rows, probe: Suite) -> None:
    """The lineage, the workers of all systems, and what they are doing."""
    running, last, now = rows.batch_ids[-len(OPEN)], rows.ids[-1], rows.now
    rows.add(tables.LineageRow, name="main", head_id=last, running_batch_id=running, updated_at=now - PACE_S)
    counts = {"fencing": 1_000 + len(rows.table[tables.VerdictRow])}
    counts |= {name: len(rows.table[table]) for name, table in COUNTED.items()}
    rows.table[tables.CounterRow] += [{"name": name, "value": value} for name, value in counts.items()]
    rows.table[tables.LockedSettingRow] += [{"name": n, "value": v, "locked_at": rows.start} for n, v in LOCKED.items()]
    troubled = {"diversity": ("failed", rows.free(TRACEBACK)), "generation": ("waiting", rows.free("the teacher"))}
    for name, system in registry.systems().items():
        state, error = troubled.get(name, ("running", None))
        told = {"state": state, "error": error, "failures": int(state == "failed")}
        place = {"host": "hub", "pid": 4_000, "version": "0.1.0+89651f73", "pages": {}}
        declaration, times = asdict(Declaration.of(system)), {"started_at": rows.start, "seen_at": now - 5}
        rows.add(tables.WorkerRow, name=f"{name}@hub+0", system=name, declaration=declaration, **place, **times, **told)
    step = STEPS * rows.size.checkpoints
    status = {"state": "training", "step": step, "loss": 0.31, "tokens_per_s": 18_900.0, "epoch": 0.33, "epochs": 1}
    status |= {"examples_done": 300, "examples_total": EXAMPLES}
    status |= {"previews": [_preview(rows, item, n, step) for n, item in enumerate(probe.items[-10:])]}
    drill = {"requested_at": now - 9_000, "requested_by": "operator", "reason": rows.free("after a new card")}
    drill |= {"attempts": 1, "started_at": now - 8_990, "finished_at": now - 8_900, "outcome": "caught"}
    drill |= {"detail": rows.free("the canary refused it"), "steps": {"load": 31.5, "canary": 4.2}}
    drill |= {f"{when}_{what}": value for when in ("before", "after") for what, value in _live(rows).items()}
    rows.add(tables.DrillRow, **drill)
    _claim(rows, "training", f"batch {running}", f"batch {running[:8]}, 300 of 900 rows, step {step}", status)
    _claim(rows, "testing", f"checkpoint {last}", rows.free(f"{last} eval 120/364"), {})
    _claim(rows, "correction", f"batch {rows.batch_ids[-1]}", "500 rows", {}, failures=2)


def _live(rows: Rows) -> dict[str, str]:
    """A checkpoint as a server names it."""
    return {"id": rows.ids[0], "weights": rows.digest("weights", 0)}


def _preview(rows: Rows, item: Example, n: int, step: int) -> dict[str, Any]:
    return Preview(
        at=rows.now - 20 + n,
        step=step - 10 * (n < 5),
        backend="transformers",
        weights=rows.digest("weights", n),
        line=n,
        seen=n < 3,
        family=item.family,
        level=item.level,
        question=item.question,
        gold=str(item.answer),
        answer=rows.free(f"answer {n}"),
        extracted=None,
        correct=(True, False, None)[n % 3],
        error=rows.free("wrong") if n % 3 == 1 else None,
        tokens=5,
        latency_s=0.1,
    ).model_dump()


def _claim(rows: Rows, system: str, subject: str, note: str, status: dict[str, Any], failures: int = 0) -> None:
    """Work under way, or after failures a pause before the next attempt."""
    kind, _, id = subject.partition(" ")
    owner = None if failures else f"{system}@hub+0"
    times = {"first_at": rows.now - 300, "claimed_at": rows.now - 60, "heartbeat_at": rows.now - 2}
    times |= {"expires_at": rows.now + 86_400, "not_before_at": rows.now + 30 * failures}
    named = {"system": system, "subject_kind": kind, "subject_id": id, "token": 1 + len(rows.table[tables.ClaimRow])}
    state = {"note": note, "status": status, "progress": 41, "failures": failures, "kills": 0}
    rows.add(tables.ClaimRow, **named, owner=owner, **times, **state)


def _troubles(rows: Rows) -> None:
    """Dead letters, open and retried, and damage."""
    checkpoint, batch = ("testing", "checkpoint", rows.ids[5]), ("correction", "batch", rows.batch_ids[2])
    subjects = [checkpoint, batch, ("generation", "ask", "letters/2"), ("mining", "checkpoint", rows.ids[2])]
    named = [{"system": system, "subject_kind": kind, "subject_id": id} for system, kind, id in subjects]
    for n in range(max(6, rows.size.checkpoints // 10)):
        told = {"error": rows.free("ArtifactError: it is damaged"), "traceback": rows.free(TRACEBACK)}
        retried = {"resolved_at": rows.now - 900, "resolution": rows.free("retried by operator")} if n % 3 else {}
        at = rows.now - 4_000 + n
        rows.add(tables.DeadLetterRow, **named[n % 4], **told, **retried, failures=5, kills=n % 2, created_at=at)
    for n, subject in enumerate(named[:2]):
        told = {"error": rows.free("its content is not what was published."), "consequence": rows.free("It waits.")}
        times = {"found_at": rows.now - 7_000, "last_seen_at": rows.now - 60, "resolved_at": rows.now if n else None}
        rows.add(tables.DamageRow, artifact=rows.digest("damaged", n), **told, **subject, **times)
