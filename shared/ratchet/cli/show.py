"""`ratchet show TOPIC`: a topic of the ledger as tables for people and as JSON for scripts.

The topics are functions of ratchet.views; each becomes a command whose options are its parameters.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from ratchet.cli.output import MOST, Json, print_json, print_table, say
from ratchet.home import opened
from ratchet.views import checkpoint_topics, comparison, coverage, data_topics, mining_topics
from ratchet.views.topics import Reader, Topic

ANY_CHECKPOINT = Annotated[
    str, typer.Argument(help="Its number, the beginning of its id, champion, newest, previous or base.")
]
OPTIONS: dict[str, Any] = {
    "limit": Annotated[int, typer.Option("--limit", "-n", min=1, max=MOST, help="How many to list.")],
    "family": Annotated[str | None, typer.Option(help="Only this family's items.")],
    "suite": Annotated[str, typer.Option(help="eval, probe, or the beginning of a suite's id.")],
    "checkpoint": ANY_CHECKPOINT,
    "earlier": ANY_CHECKPOINT,
    "later": ANY_CHECKPOINT,
}
"""The options of the commands, by the name of a topic's parameter."""

TOPICS: tuple[Callable[..., Topic], ...] = (
    checkpoint_topics.leaderboard,
    checkpoint_topics.history,
    checkpoint_topics.previews,
    comparison.diff,
    checkpoint_topics.calibration,
    data_topics.curriculum,
    data_topics.generation,
    coverage.coverage,
    mining_topics.mined,
    mining_topics.corrections,
    data_topics.suites,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Show one topic as a table, or with --json as records with more fields for scripts.",
)


def command_of(topic: Callable[..., Topic]) -> Callable[..., None]:
    """The command that reads and prints a topic, with a ``--json`` option."""

    @wraps(topic)
    def command(*, as_json: bool, **options: Any) -> None:
        with opened() as (settings, ledger), ledger.read() as session:
            found = topic(Reader(settings, ledger, session), **options)
            show_topic(found, as_json=as_json)

    given = list(inspect.signature(topic).parameters.values())[1:]
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        *(option.replace(kind=keyword, annotation=OPTIONS[option.name]) for option in given),
        inspect.Parameter("as_json", keyword, default=False, annotation=Annotated[bool, Json]),
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


for _topic in TOPICS:
    app.command(_topic.__name__)(command_of(_topic))


def show_topic(topic: Topic, *, as_json: bool) -> None:
    """Print the topic. The JSON has one list of records per table, beside the topic's further fields."""
    if as_json:
        print_json(
            {table.name: [table.values(row) for row in table.rows] for table in topic.tables} | dict(topic.json_fields)
        )
        return
    shown = [table for table in topic.tables if table.rows]
    if not shown and topic.empty:
        say(topic.empty)
        return
    if topic.lead:
        say(topic.lead)
    for place, table in enumerate(shown):
        if place:
            say()
        print_table(
            list(table.columns), ([cell(row) for cell in table.columns.values()] for row in table.rows), table.title
        )
    if topic.note:
        say(topic.note)
