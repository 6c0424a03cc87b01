"""What `ratchet data add` and `ratchet init` say about rows: how they are graded, split, and what can be proved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ratchet.cli.output import say
from ratchet.user_tasks.metric import GradedSample, graded_samples
from ratchet.wording import shortened

if TYPE_CHECKING:
    from ratchet.user_tasks.add import Prepared

QUESTION_WIDTH, ANSWER_WIDTH = 72, 60


def report(prepared: Prepared) -> None:
    """Print the task, how its answers are graded, which rows are held out, and what gain they can prove."""
    task, split = prepared.task, prepared.split
    left_out = [
        f"{split.repeated:,} repeated" if split.repeated else "",
        f"{len(prepared.unreadable):,} unreadable" if prepared.unreadable else "",
    ]
    said = "".join(f", {part}" for part in left_out if part)
    say(f"task {task.name}: {split.rows:,} different rows of {prepared.source}{said}.")
    if prepared.joined:
        say(
            f"  joins     rows of {', '.join(prepared.joined)}, since the file's name is the same. "
            "If it is other data, `--task NAME` makes a task of it."
        )
    if prepared.suggestion is not None:
        chosen = "chosen by you" if task.metric != prepared.suggestion.metric else f"since {prepared.suggestion.why}"
        say(f"  metric    {task.metric}, {chosen}; `--metric` changes it.")
    else:
        say(f"  metric    {task.metric}, as before.")
    for sample in graded_samples(prepared.sample) if task.metric == "accuracy" else ():
        _tell_grading(sample)
    if (
        task.metric != "accuracy"
        and (example := next((row for row in prepared.sample if row.answer), None)) is not None
    ):
        say(f"  example   {_tail(example.question)}")
        say(f"            reference answer: {shortened(example.answer or '', ANSWER_WIDTH)}")
    _tell_split(prepared)


def _tell_grading(sample: GradedSample) -> None:
    say(f"  example   {_tail(sample.question)}")
    gold = shortened(sample.gold, ANSWER_WIDTH)
    wordy = "right" if sample.is_wordy_right else "wrong"
    say(f"            {gold!r} is right (grader {sample.grader}); {shortened(sample.wordy, 80)!r} is {wordy}.")
    if sample.is_other_right:
        say(f"            Beware: {sample.other!r}, another row's answer, counts as right here too.")


def _tell_split(prepared: Prepared) -> None:
    split, plan = prepared.split, prepared.plan
    sizes = " · ".join(f"{len(items):,} {pool}" for pool, items in split.held_out.items())
    trained = split.rows - split.held_rows
    say(f"  held out  {sizes}; the other {trained:,} rows are trained on.")
    for task, count in split.known.most_common():
        say(f"  known     {count:,} rows of the task {task}, or nearly the same: none of them is held out.")
    for line in plan.sentences():
        say(f"  proof     {line}")


def numbers(prepared: Prepared) -> dict[str, Any]:
    """The same as values."""
    split = prepared.split
    return {
        "task": prepared.task.name,
        "metric": prepared.task.metric,
        "grader": prepared.task.grader,
        "rows": split.rows,
        "repeated": split.repeated,
        "known": dict(split.known),
        "joined": list(prepared.joined),
        "unreadable": len(prepared.unreadable),
        "held_out": {pool: len(items) for pool, items in split.held_out.items()},
        "plan": prepared.plan.as_values(),
    }


def _tail(question: str) -> str:
    """The end of a question, where the question itself mostly is."""
    line = " ".join(question.split())
    return line if len(line) <= QUESTION_WIDTH else "…" + line[-QUESTION_WIDTH:]
