"""`ratchet serve` and `ratchet ask`: run the inference server alone, and ask the live model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any
from unicodedata import category

import typer

from ratchet.cli.output import MOST_PORT, Json, print_json, say
from ratchet.errors import GenerationError, TransientError
from ratchet.proxies import DIRECT
from ratchet.serving.server_home import ServerHome, announced_url
from ratchet.settings import Settings, load


def serve(
    folder: Annotated[
        Path | None, typer.Option("--home", help="Folder for its state and token. Default: serving/ in the home.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to bind (serving.host).")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=MOST_PORT, help="Port to bind, 0 for a free one (serving.port).")
    ] = None,
) -> None:
    """Run the inference server by itself, with the engine of serving.engine. `ratchet run` starts one too.

    Clients send requests to it, and the deployer controls it. After a restart it serves the model that was live before.

    With serving.engine = vllm it is a router: it starts serving.vllm_command for each checkpoint, and gives clients
    one stable model name for the live one.
    """
    from ratchet.plugins import require_plugins
    from ratchet.serving import server  # FastAPI and more

    settings = load()
    require_plugins(settings)
    with ServerHome(folder or settings.serving_home) as home:
        server.serve(settings, home, host or settings.serving.host, port)


def ask(
    question: Annotated[str, typer.Argument(help="In the task's own format, e.g. '3+4='.")],
    model: Annotated[str | None, typer.Option(help="A loaded checkpoint. Default: the one that is live.")] = None,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Ask the served model, and say which checkpoint answered."""
    settings = load()
    turn = {"role": "user", "content": question}
    answer = _answer(settings, {"model": model or settings.serving.alias, "messages": [turn]})
    if as_json:
        print_json(answer)
        return
    say(_shown(answer["choices"][0]["message"]["content"]))
    say(f"answered by {_signature(answer)}", err=True)


def _shown(text: str) -> str:
    """The text with control characters spelt out, which would otherwise steer the terminal."""
    return "".join(c if c in "\n\t" or category(c) != "Cc" else c.encode("unicode_escape").decode() for c in text)


def _signature(answer: dict[str, Any]) -> str:
    """Which checkpoint answered, and its confidence where it is calibrated."""
    details = answer.get("ratchet", {})
    checkpoint, confidence = str(details.get("checkpoint", answer.get("model"))), details.get("confidence")
    if confidence is None:
        return checkpoint
    return f"{checkpoint}, {confidence:.0%} sure" + (": too low to rely on" if details.get("should_abstain") else "")


def _answer(settings: Settings, body: dict[str, Any]) -> dict[str, Any]:
    import httpx  # a tenth of a second that `serve` saves

    url = settings.serving.url or announced_url(settings.serving_home) or settings.serving.base_url
    try:
        with httpx.Client(mounts=DIRECT, timeout=settings.inference.timeout_s) as http:
            response = http.post(f"{url}/v1/chat/completions", json=body)
    except httpx.HTTPError as error:
        raise TransientError(f"no model answers at {url} ({error}); `ratchet run` serves one.") from error
    if response.is_error:
        raise GenerationError(f"{url} answered {response.status_code}: {_message(response)}")
    found: dict[str, Any] = response.json()
    return found


def _message(response: Any) -> str:
    """The message of an error in OpenAI's format, or else the plain text."""
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return str(response.text[:500])
