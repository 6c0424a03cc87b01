"""`ratchet verdict`: is one model better than another? For any two, and for what the gate has decided in a run."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ratchet.cli.output import Json, say, say_json
from ratchet.disk import disk_errors
from ratchet.errors import PreconditionFailed

if TYPE_CHECKING:
    from ratchet.gate.verdict_values import Verdict

EVERY_S = 2.0


def verdict(
    candidate: Annotated[
        str,
        typer.Argument(help="A model's folder, ORG/NAME of the hub, or URL#MODEL; without --against a checkpoint."),
    ],
    against: Annotated[
        str | None, typer.Option("--against", metavar="BASE", help="The model that it has to beat, named likewise.")
    ] = None,
    suite: Annotated[
        list[str] | None,
        typer.Option("--suite", metavar="FILE", help="Rows with right answers, as for `ratchet data add`; repeatable."),
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="accuracy (answers can be checked) or loss (free text); unset: by the rows.")
    ] = None,
    grader: Annotated[
        str | None, typer.Option(help="Grader of all rows: numeric, math, normalized, exact, json, choice, …")
    ] = None,
    pattern: Annotated[str | None, typer.Option(help="Regular expression of the grader regex.")] = None,
    columns: Annotated[
        str | None, typer.Option("--map", help="Columns of other names, as question=Frage,answer=Antwort.")
    ] = None,
    records: Annotated[
        Path | None,
        typer.Option(help="Folder that keeps the answers: an interrupted verdict goes on, and a base is asked once."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write verdict.json and verdict.md into.")] = None,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Say whether a candidate is better than a base, by the tests that the gate uses, outside any run.

    Both answer the same rows. The candidate is better if that is proved on the same items, and if nothing is worse by
    more than a margin; settings of [gate], [inference], [profile] and suites.max_new_tokens apply. Exit code: 0 better,
    1 not better, 2 worse, 3 cannot tell (and with how many rows it could), 4 an error.

    Without --against it prints the gate's verdict on a checkpoint of this home, in the same form.
    """
    _require_packages("scipy", "shared[stats]")
    if against is None:
        if suite:
            raise PreconditionFailed("--suite needs --against BASE: the model that the candidate has to beat.")
        found = _of_gate(candidate)
    elif not suite:
        raise PreconditionFailed("--against needs --suite FILE: rows with right answers, as for `ratchet data add`.")
    else:
        found = _compared(candidate, against, suite, metric, grader, pattern, columns, records)
    _show(found, out, as_json=as_json)
    raise typer.Exit(found.exit_code)


def _require_packages(name: str, extra: str) -> None:
    """Raise PreconditionFailed where a package is missing, as in an image that computes nothing."""
    if find_spec(name) is None:
        raise PreconditionFailed(f"a verdict needs {name}, which is not installed here: pip install '{extra}'.")


def _of_gate(name: str) -> Verdict:
    from ratchet.home import opened
    from ratchet.views.checkpoint_names import find_checkpoint
    from ratchet.views.gate_verdict import gate_verdict

    with opened() as (settings, ledger), ledger.read() as session:
        return gate_verdict(session, find_checkpoint(session, name), settings.gate)


def _compared(
    candidate: str,
    against: str,
    suite: list[str],
    metric: str | None,
    grader: str | None,
    pattern: str | None,
    columns: str | None,
    records: Path | None,
) -> Verdict:
    from ratchet.data.column_map import ColumnMap
    from ratchet.settings import load
    from ratchet.user_tasks.change import make_choice
    from ratchet.verdict.answers import Asker
    from ratchet.verdict.compare import compare
    from ratchet.verdict.items import read_items
    from ratchet.verdict.subjects import Folder, find_subject

    choice = make_choice(None, metric, grader, pattern)
    mapping = ColumnMap.parse(columns) if columns else None
    ours, theirs = find_subject(candidate), find_subject(against)
    items = read_items(suite, choice, mapping, lambda notice: say(notice, err=True))
    for note in items.notes:
        say(note, err=True)
    if any(isinstance(subject, Folder) for subject in (ours, theirs)):
        _require_packages("transformers", "shared[torch]")
    with _kept(records) as folder:
        asker = Asker(load(), items, folder, at=time.time())
        return compare(asker, ours, theirs, _Progress())


@contextmanager
def _kept(records: Path | None) -> Iterator[Path]:
    if records is not None:
        yield records
        return
    with tempfile.TemporaryDirectory(prefix="ratchet-verdict-") as folder:
        yield Path(folder)


def _show(found: Verdict, out: Path | None, *, as_json: bool) -> None:
    from ratchet.gate.verdict_text import to_markdown, write_verdict

    if out is not None:
        with disk_errors(out):
            out.mkdir(parents=True, exist_ok=True)
            write_verdict(found, out)
    if as_json:
        say_json(found.model_dump_json(indent=2))
    else:
        say(to_markdown(found).rstrip("\n"))


class _Progress:
    """Prints how far the asking is, every few seconds and at each end."""

    def __init__(self) -> None:
        self._said_at, self._last = 0.0, ("", 0)

    def __call__(self, who: str, done: int, total: int) -> None:
        now = time.monotonic()
        is_news = (who, done) != self._last and (done == total or who != self._last[0])
        if not is_news and now - self._said_at < EVERY_S:
            return
        self._said_at, self._last = now, (who, done)
        say(f"{who}: {done:,} of {total:,} items answered", err=True)
