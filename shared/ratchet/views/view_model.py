"""A snapshot of the ledger as values, and their wording. ``reading`` creates them, the terminal and pages show them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

from ratchet.evaluation.preview import Preview
from ratchet.evaluation.record import LevelRates, Rate, TaskScore
from ratchet.wording import shortened

BARS = "·▁▂▃▄▅▆▇█"
_IDLE = {
    "paused": "paused: `ratchet train resume`",
    "waiting": "waiting for data",
    "judged": "waiting for the judges: the next pass follows when they have measured what was trained",
    "used_up": "all rows are used up: `ratchet data add FILE` adds more",
    "starting": "starting",
}
_CHECKPOINT_ID = re.compile(r"\bc(\d{4,})-[0-9a-f]{6}\b")


@dataclass(frozen=True)
class Queue:
    """Depth in examples, with its low and high water marks, and batches by state."""

    depth: int
    low_water: int
    high_water: int
    batches: dict[str, int] = field(default_factory=dict)
    quarantined: int = 0


@dataclass(frozen=True)
class Training:
    """The running segment, as the trainer reports it. ``done`` and ``total`` count the batch's examples."""

    state: str
    batch_id: str | None = None
    origin: str = ""
    done: int = 0
    total: int = 0
    step: int | None = None
    loss: float | None = None
    tokens_per_s: float | None = None


@dataclass(frozen=True)
class CheckpointView:
    """One checkpoint as the view shows it. ``outcomes`` has each system's verdict so far. ``overall`` and ``levels``
    are of graded items, ``scores`` of tasks with another metric.

    ``verdicts_wanted`` names the systems that give a verdict on every checkpoint.
    """

    id: str
    ordinal: int
    step: int
    created_at: float
    state: str = "saved"
    loss: float | None = None
    overall: Rate | None = None
    levels: LevelRates = field(default_factory=dict)
    scores: dict[str, TaskScore] = field(default_factory=dict)
    outcomes: dict[str, str] = field(default_factory=dict)
    verdicts_wanted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Deployed:
    """What is deployed and why. Ordinals of checkpoints; ``actual`` is what the server last reported."""

    desired: int
    actual: int | None
    reason: str
    since_at: float
    proved: bool = True
    frozen_reason: str | None = None
    deployments: int = 0


@dataclass(frozen=True)
class Activity:
    """One line of recent activity: a verdict, an event or a dead letter."""

    at: float
    who: str
    text: str
    kind: str = "verdict"


@dataclass(frozen=True)
class Busy:
    """A subject that a system works on right now."""

    system: str
    subject: str
    since_at: float
    note: str


@dataclass(frozen=True)
class TaskView:
    """A user's task: how often its rows were taught, and the reason where it is used up."""

    name: str
    passes: float
    state: str
    reason: str = ""


@dataclass(frozen=True)
class View:
    """One consistent snapshot of the ledger. ``previews`` are the newest ones, the newest last.

    ``hosts`` has the number of recently seen workers by machine. ``warnings`` are sentences about what needs the user's
    attention, the most urgent first; the text of a warning does not change while its cause lasts.
    """

    at: float
    queue: Queue
    training: Training
    checkpoints: tuple[CheckpointView, ...]
    live: Deployed | None
    activities: tuple[Activity, ...]
    busy: tuple[Busy, ...]
    workers: dict[str, str]
    dead: int
    mix: dict[str, float] = field(default_factory=dict)
    title: str = ""
    previews: tuple[Preview, ...] = ()
    hosts: dict[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    tasks: tuple[TaskView, ...] = ()


@dataclass(frozen=True)
class Scale:
    """Where values lie between 0 and 100, from the least to the greatest of those that are shown, and 0."""

    least: float
    greatest: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Scale:
        shown = [0.0, *values]
        return cls(min(shown), max(shown))

    def place(self, value: float) -> float:
        if self.greatest == self.least:
            return 50.0
        return min(100.0, max(0.0, 100 * (value - self.least) / (self.greatest - self.least)))


def plain(text: str) -> str:
    """The text on one line, with checkpoint ids replaced by numbers: ``c0007-3fa9c2`` becomes ``#7``."""
    return _CHECKPOINT_ID.sub(lambda found: f"#{int(found[1])}", " ".join(text.split()))


def model_name(path: str) -> str:
    """A model as people call it: the folder's name of a path, and the whole name of one on the hub."""
    is_folder = path.startswith(("/", "./", "../", "~")) or path.count("/") > 1
    return PurePath(path).name or path if is_folder else path


def percent(rate: Rate) -> str:
    """Whole per cent; 100 only if every item is right, and 0 only if none is."""
    if rate.correct == rate.n:
        return "100"
    return str(min(99, max(1 if rate.correct else 0, round(100 * rate.value))))


def bar(rate: Rate) -> str:
    """One character: from a dot for none right to a full block for nearly all."""
    return BARS[min(len(BARS) - 1, round(rate.value * (len(BARS) - 1)))] if rate.correct else BARS[0]


def thousands(number: float) -> str:
    """``950``, ``18.2k``, ``1.4M``, ``3.0B``."""
    for unit, factor in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= 10 * factor or (unit != "k" and number >= factor):
            return f"{number / factor:.1f}{unit}"
    return f"{number:,.0f}"


def elapsed(seconds: float) -> str:
    """``3:07`` or ``1:02:09``."""
    minutes, rest = divmod(int(max(0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def status_text(checkpoint: CheckpointView, live: Deployed | None) -> str:
    """A checkpoint's status: ``live``, the deployer's outcome, or how many verdicts it has."""
    if live is not None and checkpoint.ordinal == live.desired:
        return "live" if live.actual == live.desired else "going live"
    if checkpoint.state != "saved":
        return checkpoint.state
    decided = checkpoint.outcomes.get("deployment") or (
        checkpoint.outcomes.get("testing") if checkpoint.outcomes.get("testing") == "superseded" else None
    )
    if decided:
        return "was live" if decided == "deployed" else decided
    if checkpoint.ordinal == 0:
        return "the base model"
    given = sum(system in checkpoint.outcomes for system in checkpoint.verdicts_wanted)
    return f"{given} of {len(checkpoint.verdicts_wanted)} verdicts" if given else "waiting for testing"


def tasks_line(tasks: Sequence[TaskView]) -> str:
    """Each task with how often its rows were submitted; first those that are used up, with the way out."""
    used_up = [f"{task.name} is used up: {task.reason}" for task in tasks if task.state == "used_up"]
    taught = [f"{task.name} {task.passes:.1f} passes" for task in tasks if task.state != "used_up"]
    return " · ".join([*used_up, *taught])


def training_line(training: Training) -> str:
    """Step, loss and speed, as far as they are known."""
    if training.state in _IDLE:
        return _IDLE[training.state]
    parts = [
        training.state if training.state != "training" else "",
        f"step {training.step:,}" if training.step is not None else "",
        f"loss {training.loss:.3f}" if training.loss is not None else "",
        f"{thousands(training.tokens_per_s)} tokens/s" if training.tokens_per_s else "",
        f"{training.done:,} of {training.total:,} examples",
        f"{training.origin} batch {(training.batch_id or '')[:6]}",
    ]
    return " · ".join(part for part in parts if part)


def levels_line(checkpoint: CheckpointView) -> str:
    """``chain_sum 100 98 64 3 · menus 1.61 nats/token``: per cent by level, the easiest first, then other metrics."""
    families: dict[str, list[str]] = {}
    for (family, _level), rate in sorted(checkpoint.levels.items()):
        families.setdefault(family, []).append(percent(rate))
    graded = [f"{family} {' '.join(rates)}" for family, rates in families.items()]
    return " · ".join([*graded, *(f"{family} {score.text}" for family, score in checkpoint.scores.items())])


def previews_line(previews: Sequence[Preview]) -> str:
    """``step 1,200: 3 of 4 right · 41 of the last 50``. Takes the newest last, at least one.

    Answers that no grader checks are not counted.
    """
    last = last_preview(previews)
    grades, before = ([p.correct for p in each if p.correct is not None] for each in (last, previews))
    if not grades:
        return f"step {last[0].step:,}: {len(last)} answers, which no grader checks"
    text = f"step {last[0].step:,}: {sum(grades)} of {len(grades)} right"
    if len(before) > len(grades):
        text += f" · {sum(before)} of the last {len(before)}"
    return text


def last_preview(previews: Sequence[Preview]) -> list[Preview]:
    """The answers of the newest step."""
    return [preview for preview in previews if preview.step == previews[-1].step]


def preview_line(preview: Preview, width: int) -> str:
    """``chain_sum/2  12+7=  →  12+7=18  not 19 (carry)``, a third of the width for each text."""
    room = max(12, width // 3)
    question, answer, gold = (shortened(text, room) for text in (preview.question, preview.answer, preview.gold))
    wrong = f"  not {gold}" + (f" ({preview.error})" if preview.error else "")
    return f"{task(preview)}  {question}  →  {answer or 'nothing'}{wrong if preview.correct is False else ''}"


def task(preview: Preview) -> str:
    """Family and level, and whether the row had been trained on before it was asked."""
    return f"{preview.family or 'text'}/{preview.level}" + (" (seen)" if preview.seen else "")
