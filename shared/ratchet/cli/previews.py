"""`ratchet previews`: what the model in training answered lately."""

from __future__ import annotations

from typing import Annotated

import typer

from ratchet.bus.bulletin import newest
from ratchet.cli.output import Json, clock, print_table, shortened
from ratchet.cli.view.words import task
from ratchet.evaluation.preview import JOURNAL, Preview, read_previews
from ratchet.settings import Settings, load

WIDTH = 40


def previews(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many of the newest.")] = 12,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Show what the model answered to a few rows of its file while it trained, graded; the newest last.

    They are for looking at: no decision rests on them. On another machine than that which trains it
    knows the newest fifty. With --json one object a line.
    """
    settings = load()
    found = _newest(settings, limit)
    if as_json:
        for preview in found:
            typer.echo(preview.model_dump_json())
        return
    if not found:
        typer.echo(
            "no previews yet: the first comes after monitoring.preview_interval = "
            f"{settings.monitoring.preview_interval} steps of training, from {settings.monitoring.preview_backend!r}."
        )
        return
    columns = ("at", ">step", "by", "task", "question", "gold", "answer", "")
    print_table(columns, [_row(preview) for preview in found])


def _newest(settings: Settings, limit: int) -> list[Preview]:
    """Of this machine's journal, or of what another machine that trains puts up, whichever is newer."""
    own = read_previews(settings.status_folder / JOURNAL, limit)
    heard = newest(settings)
    if heard is None or not heard.previews or (own and own[-1].at >= heard.previews[-1].at):
        return own
    return list(heard.previews[-limit:])


def _row(preview: Preview) -> tuple[str, ...]:
    texts = [shortened(text, WIDTH) for text in (preview.question, preview.gold, preview.answer)]
    verdict = "right" if preview.correct else preview.error or "wrong"
    return (clock(preview.at), f"{preview.step:,}", preview.backend, task(preview), *texts, verdict)
