"""Asks the inference server on behalf of a browser, and passes its answer on as it grows.

A browser gets one JSON object a line: ``state`` (what is waited for), ``from`` (which checkpoint answers), ``text`` (a
piece of the answer), at last ``done`` or ``problem``. It never talks to the server itself, so no token is in a page.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import anyio.to_thread
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import select

from ratchet.errors import PreconditionFailed, RatchetError
from ratchet.ledger import Ledger
from ratchet.ledger.tables import CheckpointRow
from ratchet.lines import to_json_line
from ratchet.settings import Settings
from ratchet.views.checkpoint_names import find_checkpoint
from ratchet.web.loaded_models import (
    POLL_S,
    PREFIX,
    AskedCheckpoint,
    LoadedModels,
    ModelLease,
    connection,
    server_url,
    unreachable,
)

if TYPE_CHECKING:
    import httpx

log = logging.getLogger(__name__)

LIVE = "live"
"""The name of whatever is live when the question arrives."""
MOST_TURNS = 255
ATTEMPTS = 4
SLACK_S = 10.0
"""How much longer than the server's own limit an answer is waited for."""
_GONE = "the inference server went away in the middle of the answer; what had come is kept. Ask again in a moment."

Event = dict[str, Any]


class Turn(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    role: Literal["user", "assistant"]
    content: str


class ChatRequest(BaseModel):
    """A question of the page, with the turns before it. ``model`` is ``live`` or names a checkpoint.

    ``task`` says of which of the user's tasks the question is: only then can its confidence be stated.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Annotated[str, Field(min_length=1, max_length=200)]
    messages: Annotated[tuple[Turn, ...], Field(min_length=1, max_length=MOST_TURNS)]
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 256
    task: str | None = None

    @classmethod
    def parse(cls, text: str) -> ChatRequest:
        """Raises PreconditionFailed for what the page would not send."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"])) or "chat"
            raise PreconditionFailed(f"{field}: {first['msg']}.") from error

    def body(self, name: str) -> dict[str, Any]:
        """The request for the model of that name."""
        told: dict[str, Any] = {"metadata": {"task": self.task}} if self.task else {}
        if self.temperature > 0:
            told["temperature"] = self.temperature
        return {
            "model": name,
            "messages": [turn.model_dump() for turn in self.messages],
            "max_tokens": self.max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
            **told,
        }


class InferenceError(RatchetError):
    """The server refused a request or ended it; ``code`` is its name for the cause."""

    def __init__(self, message: str, code: str = ""):
        super().__init__(message)
        self.code = code


class Answers:
    """Answers of the models, for one event loop."""

    def __init__(self, settings: Settings, ledger: Ledger):
        self._settings, self._ledger = settings, ledger
        self.models = LoadedModels(settings)

    async def lines(self, asked: ChatRequest) -> AsyncIterator[str]:
        """The events of one answer as lines of JSON. An error is an event, the last one."""
        try:
            async for event in self._events(asked):
                yield to_json_line(event) + "\n"
        except RatchetError as error:
            yield to_json_line({"problem": str(error)}) + "\n"
        except Exception as error:
            log.error("asking %s failed", asked.model, exc_info=error)
            text = f"This is a fault of the page ({type(error).__name__}); its log has the traceback."
            yield to_json_line({"problem": text}) + "\n"

    async def _events(self, asked: ChatRequest) -> AsyncIterator[Event]:
        if asked.model == LIVE:
            async for event in self._ask(asked, self._settings.serving.alias):
                yield event
            return
        lease = ModelLease(await anyio.to_thread.run_sync(self._checkpoint, asked.model))
        try:
            for attempt in range(ATTEMPTS):
                async for note in self.models.prepare(lease):
                    yield {"state": note}
                assert lease.name is not None, "a prepared lease has a name"
                try:
                    async for event in self._ask(asked, lease.name):
                        yield event
                    return
                except InferenceError as error:
                    # The deployer may have unloaded it since, to bring up another one.
                    if attempt == ATTEMPTS - 1 or error.code != "model_not_found":
                        raise
                await asyncio.sleep(POLL_S)
        finally:
            self.models.release(lease)

    async def _ask(self, asked: ChatRequest, name: str) -> AsyncIterator[Event]:
        import httpx

        url, has_begun = server_url(self._settings), False
        try:
            async with (
                connection(url, self._settings.serving.request_timeout_s + SLACK_S) as http,
                http.stream("POST", "/v1/chat/completions", json=asked.body(name)) as response,
            ):
                if response.is_error:
                    await response.aread()
                    raise _error_of(response)
                parsed = AnswerEvents()
                async for data in _data(response):
                    for event in parsed.events(data):
                        has_begun = True
                        if "from" in event:
                            event["from"]["ordinal"] = await anyio.to_thread.run_sync(
                                self._ordinal, event["from"]["checkpoint"]
                            )
                        yield event
        except httpx.ConnectError as error:
            raise unreachable(url) from error
        except httpx.TimeoutException as error:
            raise InferenceError(
                f"the inference server at {url} has not answered in time; ask again in a moment."
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise (InferenceError(_GONE) if has_begun else unreachable(url)) from error
        if not parsed.has_ended:
            raise InferenceError(_GONE)

    def _checkpoint(self, name: str) -> AskedCheckpoint:
        with self._ledger.read() as session:
            return AskedCheckpoint.of(find_checkpoint(session, name))

    def _ordinal(self, checkpoint_id: str) -> int | None:
        with self._ledger.read() as session:
            return session.scalar(select(CheckpointRow.ordinal).where(CheckpointRow.id == checkpoint_id))


class AnswerEvents:
    """Translates the server's events of one answer into those for the browser."""

    def __init__(self) -> None:
        self.has_ended = False
        self._has_named = False
        self._last: dict[str, Any] = {}

    def events(self, data: bytes) -> list[Event]:
        """The browser's events for the data of one of the server's. Raises InferenceError for an error."""
        if data == b"[DONE]":
            self.has_ended = True
            return [{"done": self._last}]
        try:
            chunk = json.loads(data)
        except ValueError:
            raise InferenceError("the inference server has sent what is no JSON.") from None
        if error := chunk.get("error"):
            raise InferenceError(_why_cut_off(error), str(error.get("code", "")))
        stated, found = chunk.get("ratchet") or {}, list[Event]()
        if not self._has_named and stated.get("checkpoint"):
            self._has_named = True
            found.append({"from": {"checkpoint": str(stated["checkpoint"]).removeprefix(PREFIX)}})
        for choice in chunk.get("choices") or ():
            if text := (choice.get("delta") or {}).get("content"):
                found.append({"text": str(text)})
            if choice.get("finish_reason"):
                self._last |= {"finish_reason": choice["finish_reason"]}
                self._last |= {name: stated.get(name) for name in ("confidence", "should_abstain")}
        if usage := chunk.get("usage"):
            self._last["tokens"] = usage.get("completion_tokens")
        return found


def _why_cut_off(error: dict[str, Any]) -> str:
    """What the server said, for somebody who may have the beginning of the answer already."""
    message = str(error.get("message", error)).rstrip(".")
    if error.get("code") == "timeout":
        return (
            f"the answer is cut off, since it took longer than a request may ({message}: `serving.request_timeout_s`). "
            "Ask for fewer tokens, or again when the machine is less busy."
        )
    return f"the answer is cut off: {message}."


async def _data(response: httpx.Response) -> AsyncIterator[bytes]:
    """The data of server-sent events. They end at a line feed; httpx's own lines would end in the middle of some."""
    unread = b""
    async for piece in response.aiter_bytes():
        *lines, unread = (unread + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield line.removeprefix(b"data:").strip()


def _error_of(response: httpx.Response) -> InferenceError:
    try:
        error: Mapping[str, Any] = response.json()["error"]
        return InferenceError(f"{error['message']} ({response.status_code})", str(error.get("code", "")))
    except (ValueError, KeyError, TypeError):
        return InferenceError(f"the inference server answered {response.status_code}: {response.text[:300]}")
