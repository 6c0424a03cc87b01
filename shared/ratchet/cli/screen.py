"""Shows a View: drawn with rich on a terminal of 80 columns and 24 rows or more, elsewhere one line per change.

From the ledger it reads only the activity since the last line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ratchet.evaluation.preview import Preview
from ratchet.evaluation.record import LevelRates, Rate
from ratchet.ledger import Ledger
from ratchet.views import view_model
from ratchet.views.activity import Mark, mark, recent
from ratchet.views.view_model import Activity, CheckpointView, Deployed, Queue, Training, View

LABEL_WIDTH = 11
FIXED_ROWS = 9
"""Title, queue, training, live, two headings, the table's header, the hint and a spare row."""

MOST_WARNINGS = 3

HIGH = 30
FEW_ANSWERS, MANY_ANSWERS = 2, 4
"""Answers of a preview that are shown in a terminal of fewer than ``HIGH`` rows, and in a higher one."""

OUTCOME_STYLES = {
    "dead": "bold red",
    "broken": "red",
    "regressed": "red",
    "rejected": "red",
    "refused": "yellow",
    "held": "dim",
    "superseded": "dim",
    "deployed": "bold green",
    "deployment.rolled_back": "bold red",
    "checkpoint.deployed": "bold green",
    "queue.low": "dim",
}


@dataclass(frozen=True)
class Frame:
    """The size of the terminal, and the lines above and below the view."""

    width: int
    height: int
    heading: str = ""
    hint: str = ""


def draw(view: View, frame: Frame) -> Group:
    """The whole view, ``frame.height`` rows at most."""
    answers, warnings = _answers(view.previews, frame), _warnings(view.warnings)
    room = max(4, frame.height - FIXED_ROWS - len(answers) - bool(answers) - len(warnings) - bool(view.tasks))
    shown = view.checkpoints[: max(2, min(room * 2 // 5, len(view.checkpoints)))]
    parts: list[RenderableType] = [
        _title(view, frame),
        _status(view, frame.width),
        *answers,
        *warnings,
        _heading("checkpoints", frame.width),
        _checkpoints(shown, view.live, frame.width),
        _heading("activity", frame.width),
        *(_activity(h) for h in view.activities[: max(2, room - len(shown))]),
    ]
    if frame.hint:
        parts.append(Text(frame.hint, style="dim", no_wrap=True, overflow="ellipsis"))
    return Group(*parts)


def _title(view: View, frame: Frame) -> Table:
    row = Table.grid(expand=True)
    row.add_column(no_wrap=True)
    row.add_column(justify="right", no_wrap=True, overflow="ellipsis")
    left = Text.assemble(("ratchet", "bold"), ("  " + view_model.model_name(view.title), "dim"))
    right = Text(frame.heading)
    if view.dead:
        right.append(f"  {view.dead} dead letter{'s' if view.dead > 1 else ''}", style="bold red")
    row.add_row(left, right)
    return row


def _status(view: View, width: int) -> Table:
    rows = Table.grid(padding=(0, 1))
    rows.add_column(width=LABEL_WIDTH, style="bold cyan")
    rows.add_column(no_wrap=True, overflow="ellipsis", width=width - LABEL_WIDTH - 2)
    rows.add_row("queue", _queue(view.queue, width))
    rows.add_row("training", _training(view.training, width))
    if view.tasks:
        rows.add_row("tasks", Text(view_model.tasks_line(view.tasks)))
    rows.add_row("live", _live(view.live, view.at))
    if view.previews:
        rows.add_row("previews", Text(view_model.previews_line(view.previews)))
    return rows


def _warnings(warnings: Sequence[str]) -> list[Text]:
    """One row each; if there are too many, the last row counts the rest."""
    shown = list(warnings[:MOST_WARNINGS])
    if len(warnings) > MOST_WARNINGS:
        shown[-1] = f"and {len(warnings) - MOST_WARNINGS + 1} more warnings: `ratchet doctor`"
    return [Text(f"! {view_model.plain(text)}", style="bold red", no_wrap=True, overflow="ellipsis") for text in shown]


def _answers(previews: Sequence[Preview], frame: Frame) -> list[Text]:
    """A few answers of the newest preview, one per line; fewer on a low terminal."""
    few = FEW_ANSWERS if frame.height < HIGH else MANY_ANSWERS
    return [_answer(preview, frame.width) for preview in view_model.last_preview(previews)[:few]]


MARKS = {True: ("✓", "green"), False: ("✗", "red"), None: ("·", "dim")}
"""The mark of an answer that is right, wrong, or not checked by a grader."""


def _answer(preview: Preview, width: int) -> Text:
    mark, style = MARKS[preview.correct]
    text = view_model.preview_line(preview, width - LABEL_WIDTH - 20)
    return Text.assemble(" " * (LABEL_WIDTH + 1), (mark + " ", style), text, no_wrap=True, overflow="ellipsis")


def _bar(done: float, total: float, width: int) -> ProgressBar:
    return ProgressBar(total=max(1.0, total), completed=min(done, max(1.0, total)), width=max(10, width // 8))


def _beside(bar: ProgressBar, text: Text) -> Table:
    row = Table.grid(padding=(0, 1))
    row.add_column(width=bar.width)
    row.add_column(no_wrap=True, overflow="ellipsis")
    row.add_row(bar, text)
    return row


def _queue(queue: Queue, width: int) -> RenderableType:
    text = Text(f"{queue.depth:,} examples")
    if queue.depth < queue.low_water:
        text.append(f", low: under {queue.low_water:,}", style="yellow")
    waiting = [f"{queue.batches[s]} {s}" for s in ("submitted", "queued") if queue.batches.get(s)]
    done = [f"{queue.batches[s]} {s}" for s in ("trained", "rejected", "quarantined") if queue.batches.get(s)]
    text.append("  " + " · ".join([*waiting, *done]), style="dim")
    return _beside(_bar(queue.depth, queue.high_water, width), text)


def _training(training: Training, width: int) -> RenderableType:
    text = Text(view_model.training_line(training))
    if not training.total:
        return text
    return _beside(_bar(training.done, training.total, width), text)


def _live(live: Deployed | None, now: float) -> Text:
    if live is None:
        return Text("nothing yet", style="dim")
    text = Text.assemble((f"#{live.desired}", "bold green"), f" for {view_model.elapsed(now - live.since_at)}")
    if live.actual != live.desired:
        text.append(f" (the server still has {'nothing' if live.actual is None else f'#{live.actual}'})", "yellow")
    if live.frozen_reason is not None:
        text.append(f"  frozen: {live.frozen_reason}", "yellow")
    if not live.proved:
        text.append("  unproved", "yellow")
    return text.append(f"  {view_model.plain(live.reason)}", "dim")


def _heading(text: str, width: int) -> Text:
    return Text(f"── {text} ".ljust(width, "─"), style="dim", no_wrap=True)


def _checkpoints(checkpoints: tuple[CheckpointView, ...], live: Deployed | None, width: int) -> Table:
    families = _families(checkpoints)
    wide = 44 + sum(max(len(f), 4 * n) + 2 for f, n in families.items()) <= width
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    for column in ("", "step", "loss", "eval"):
        table.add_column(column, justify="right", no_wrap=True)
    for family in families:
        table.add_column(family, no_wrap=True)
    table.add_column("status", no_wrap=True, overflow="ellipsis")
    for checkpoint in checkpoints:
        is_live = live is not None and checkpoint.ordinal == live.desired
        table.add_row(
            Text(f"#{checkpoint.ordinal}", style="bold green" if is_live else ""),
            f"{checkpoint.step:,}",
            f"{checkpoint.loss:.3f}" if checkpoint.loss is not None else "",
            f"{view_model.percent(checkpoint.overall)} %" if checkpoint.overall else "",
            *(_results(checkpoint, family, wide) for family in families),
            _standing(checkpoint, live),
        )
    return table


def _families(checkpoints: tuple[CheckpointView, ...]) -> dict[str, int]:
    """Families with the number of their levels, over all checkpoints shown."""
    cells = {cell for checkpoint in checkpoints for cell in checkpoint.levels}
    cells |= {(family, 1) for checkpoint in checkpoints for family in checkpoint.scores}
    return {f: len({level for g, level in cells if g == f}) for f in sorted({f for f, _ in cells})}


def _results(checkpoint: CheckpointView, family: str, wide: bool) -> Text:
    """A family's rates by level, or a task's loss in nats a token or share of preferences."""
    score = checkpoint.scores.get(family)
    if score is None:
        return _levels(checkpoint.levels, family, wide)
    return Text(f"{score.mean:.2f}" if score.metric == "loss" else f"{score.mean:.0%}")


def _levels(levels: LevelRates, family: str, wide: bool) -> Text:
    """Per cent by level, the easiest first; if space is short, one bar per level and the family's per cent."""
    rates = [rate for (name, _), rate in sorted(levels.items()) if name == family]
    if not rates:
        return Text("")
    if wide:
        return Text("").join(Text(view_model.percent(rate).rjust(3) + " ", style=_shade(rate.value)) for rate in rates)
    bars = Text("").join(Text(view_model.bar(rate), style=_shade(rate.value)) for rate in rates)
    pooled = Rate(correct=sum(rate.correct for rate in rates), n=sum(rate.n for rate in rates))
    return bars.append(f" {view_model.percent(pooled)}%", "dim")


def _is_evaluated(checkpoint: CheckpointView) -> bool:
    return bool(checkpoint.levels or checkpoint.scores)


def _told(checkpoint: CheckpointView) -> str:
    unit = " (% by level)" if checkpoint.levels else ""
    return f"#{checkpoint.ordinal}: {view_model.levels_line(checkpoint)}{unit}"


def _shade(rate: float) -> str:
    return "green" if rate >= 0.9 else "yellow" if rate >= 0.5 else "dim"


def _standing(checkpoint: CheckpointView, live: Deployed | None) -> Text:
    status = view_model.status_text(checkpoint, live)
    return Text(status, style="bold green" if status == "live" else OUTCOME_STYLES.get(status, ""))


def _activity(activity: Activity) -> Text:
    moment = datetime.fromtimestamp(activity.at).strftime("%H:%M:%S")
    return Text.assemble(
        (moment + " ", "dim"),
        (activity.who.ljust(LABEL_WIDTH) + " ", "cyan"),
        (activity.text, OUTCOME_STYLES.get(activity.kind, "")),
        no_wrap=True,
        overflow="ellipsis",
    )


TRAINING_EVERY_S = 10.0
PREVIEW_WIDTH = 120
MOST = 200
"""The most lines printed at once; only a long pause accumulates more."""


class ChangeLines:
    """Lines for the changes since the last call. It starts at the current end of the ledger."""

    def __init__(self, ledger: Ledger):
        self._ledger = ledger
        with ledger.read() as session:
            self._mark = mark(session)
        self._training_at = 0.0
        self._training = ""
        self._shown_levels: set[str] = set()
        self._previewed_at: float | None = None
        self._warnings: tuple[str, ...] = ()

    def new_lines(self, view: View) -> list[str]:
        """The new lines, the oldest first."""
        with self._ledger.read() as session:
            seen: Mark = mark(session)
            activities = recent(session, MOST, self._mark)
        self._mark = seen
        lines = [line(h.at, h.who, h.text) for h in reversed(activities)]
        return [
            *lines,
            *self._warned(view),
            *self._levels(view),
            *self._previews(view),
            *self._progress(view),
        ]

    def _warned(self, view: View) -> list[str]:
        """Each new warning once; one that comes back is printed again."""
        new = [text for text in view.warnings if text not in self._warnings]
        self._warnings = view.warnings
        return [line(view.at, "warning", text) for text in new]

    def _levels(self, view: View) -> list[str]:
        """The accuracy of each checkpoint, once, when its evaluation appears."""
        new = [
            checkpoint
            for checkpoint in reversed(view.checkpoints)
            if _is_evaluated(checkpoint) and checkpoint.id not in self._shown_levels
        ]
        if not self._shown_levels:
            new = new[-1:]  # of the evaluations before the start, the newest is enough
        self._shown_levels.update(checkpoint.id for checkpoint in view.checkpoints if _is_evaluated(checkpoint))
        return [line(view.at, "accuracy" if checkpoint.levels else "scores", _told(checkpoint)) for checkpoint in new]

    def _previews(self, view: View) -> list[str]:
        """The newest preview, once: how many answers were right, and each wrong one. Earlier previews are not
        printed."""
        newest = view.previews[-1].at if view.previews else 0.0
        before, self._previewed_at = self._previewed_at, newest
        if before is None or newest <= before:
            return []
        wrong = [preview for preview in view_model.last_preview(view.previews) if preview.correct is False]
        texts = [
            view_model.previews_line(view.previews),
            *(view_model.preview_line(preview, PREVIEW_WIDTH) for preview in wrong),
        ]
        return [line(newest, "preview", text) for text in texts]

    def _progress(self, view: View) -> list[str]:
        text = view_model.training_line(view.training)
        if text == self._training or view.at - self._training_at < TRAINING_EVERY_S:
            return []
        self._training, self._training_at = text, view.at
        return [line(view.at, "training", text)]


def line(at: float, who: str, text: str) -> str:
    """``01:23:45 testing     #3 evaluated: …``"""
    return f"{datetime.fromtimestamp(at):%H:%M:%S} {who:<12} {text}"


class Screen:
    """Shows views on a console while the block runs. On a terminal the last view stays on the screen."""

    def __init__(self, console: Console):
        self.console = console
        self._live = Live(console=console, auto_refresh=False, transient=False) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, view: View, heading: str, hint: str, changes: ChangeLines) -> None:
        """Show the whole view on a terminal, and otherwise only its changes."""
        if self._live is not None:
            frame = Frame(self.console.width, self.console.height, heading, hint)
            self._live.update(draw(view, frame), refresh=True)
            return
        for line in changes.new_lines(view):
            self.console.print(line, markup=False, soft_wrap=True)

    def announce(self, text: str) -> None:
        """Print a line above the view."""
        self.console.print(text, markup=False, soft_wrap=True)
