"""`ratchet ask`: a question to the model that is live."""

from __future__ import annotations

from typing import Annotated, Any

import httpx
import typer

from ratchet.cli.output import Json, print_json
from ratchet.errors import GenerationError, TransientError
from ratchet.serving.home import announced_url
from ratchet.settings import Settings, load


def ask(
    question: Annotated[str, typer.Argument(help="As the task words it, e.g. '3+4='.")],
    model: Annotated[str | None, typer.Option(help="A loaded checkpoint; without it the one that is live.")] = None,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Ask the served model, and say which checkpoint answered."""
    settings = load()
    answer = _answer(settings, {"model": model or settings.serving.alias, "messages": [_turn(question)]})
    if as_json:
        print_json(answer)
        return
    typer.echo(answer["choices"][0]["message"]["content"])
    typer.echo(f"answered by {_signature(answer)}", err=True)


def _signature(answer: dict[str, Any]) -> str:
    """Who answered, and how sure it is where its calibration says so."""
    told = answer.get("ratchet", {})
    who, sure = str(told.get("checkpoint", answer.get("model"))), told.get("confidence")
    if sure is None:
        return who
    return f"{who}, {sure:.0%} sure" + (": too little to rely on" if told.get("should_abstain") else "")


def _turn(question: str) -> dict[str, str]:
    return {"role": "user", "content": question}


def _answer(settings: Settings, body: dict[str, Any]) -> dict[str, Any]:
    url = settings.serving.url or announced_url(settings.serving_home) or settings.serving.base_url
    try:
        response = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=settings.inference.timeout_s)
    except httpx.HTTPError as error:
        raise TransientError(f"no model answers at {url} ({error}); `ratchet run` serves one.") from error
    if response.is_error:
        raise GenerationError(f"{url} answered {response.status_code}: {_said(response)}")
    found: dict[str, Any] = response.json()
    return found


def _said(response: httpx.Response) -> str:
    """The message of an error in the shape of the OpenAI API, or the text as it is."""
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return response.text[:500]
