"""An example is one conversation with metadata, identified by the hash of its turns. Also the provenance of batches."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Role = Literal["system", "user", "assistant", "tool"]

_canonical = json.JSONEncoder(ensure_ascii=False).encode


def _is_unset(value: Any) -> bool:
    return value is None or value == ()


class Message(BaseModel):
    """One turn of a conversation. Fields with a default are written, and count for ids, only where they are set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Role
    content: str
    train: bool | None = Field(None, exclude_if=_is_unset)
    """False: the turn is context and never trained on. None: as turns of this role are."""
    tool_calls: tuple[dict[str, Any], ...] = Field((), exclude_if=_is_unset)
    """Calls of an assistant turn, as OpenAI writes them: id, type, function {name, arguments}."""
    tool_call_id: str | None = Field(None, exclude_if=_is_unset)
    """Of a tool turn: the id of the call that it answers."""
    name: str | None = Field(None, exclude_if=_is_unset)
    """The speaker; of a tool turn, the name of the tool."""

    @property
    def identity(self) -> list[Any]:
        """What of the turn goes into its example's id."""
        extras = self.model_dump(exclude={"role", "content"})
        return [self.role, self.content, extras] if extras else [self.role, self.content]


class Example(BaseModel):
    """One training or test example, one line of a JSONL file.

    ``metadata`` keeps all fields of the source. Ratchet itself reads ``family`` (name of a task family or of another
    kind of row), ``level`` (int, 1 is the easiest), ``gold`` (the expected answer, if it is not the last assistant
    turn), ``grader``, ``tools`` and ``source``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    messages: tuple[Message, ...] = Field(min_length=1)
    metadata: dict[str, Any] = Field(default_factory=dict)

    @property
    def id(self) -> str:
        """32 hex digits of the sha256 over the turns alone, so the same conversation always has the same id."""
        turns = [message.identity for message in self.messages]
        return hashlib.sha256(_canonical(turns).encode()).hexdigest()[:32]

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The turns without a closing assistant turn."""
        return self.messages[:-1] if self.messages[-1].role == "assistant" else self.messages

    @property
    def prompt_text(self) -> str:
        """The contents of the prompt's turns, by which texts are compared."""
        return "\n".join(message.content for message in self.prompt)

    @property
    def question(self) -> str:
        """The content of the last user turn, or an empty string."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")

    @property
    def answer(self) -> str | None:
        """The content of the closing assistant turn, or None."""
        last = self.messages[-1]
        return last.content if last.role == "assistant" else None

    @property
    def tools(self) -> list[dict[str, Any]] | None:
        """The functions that the assistant may call, as a chat template takes them; None if there are none."""
        return self.metadata.get("tools") or None

    @property
    def family(self) -> str | None:
        return self.metadata.get("family")

    @property
    def level(self) -> int:
        return int(self.metadata.get("level", 1))

    def to_line(self) -> str:
        """The example as one line of JSON, without a newline."""
        return json.dumps(
            {"messages": [m.model_dump() for m in self.messages], "metadata": self.metadata},
            ensure_ascii=False,
        )

    @classmethod
    def ask(cls, question: str, answer: str, **metadata: Any) -> Example:
        """An example of one question and its answer."""
        turns = (Message(role="user", content=question), Message(role="assistant", content=answer))
        return cls(messages=turns, metadata=metadata)


class Provenance(BaseModel):
    """Where a batch came from. ``parents`` are ids of its sources (batches, evaluations, a file's sha256)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    generator: str = Field(min_length=1)
    version: str
    seed: int | None = None
    parents: tuple[str, ...] = ()
    counts: dict[str, int] = Field(default_factory=dict)
    """Number of examples of each kind that the generator distinguishes."""
