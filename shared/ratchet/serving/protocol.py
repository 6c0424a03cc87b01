"""The protocol between deployer and inference server, and the bodies of the /admin routes. It imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field

from ratchet.data.example import Message
from ratchet.evaluation.confidence import Certainty
from ratchet.inference.generator import Chat, Decoding, Generation, Reply


class Live(BaseModel):
    """The checkpoint behind the stable model name, and the fencing token of the switch to it.

    ``certainty`` is the calibration deployed with it; if there is one, answers state their confidence.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    checkpoint_id: str
    weights: str
    fencing_token: int
    certainty: Certainty | None = None


class Conditions(BaseModel):
    """The server's engine and hardware: the fields that are also part of an evaluation record's key."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    engine: str
    dtype: str
    gpu_class: str


class Traffic(BaseModel):
    """Client requests to one checkpoint since it was loaded.

    ``errors`` are failures of the server, not of the client. Latencies are quantiles over the last 1,000 requests.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    requests: int = 0
    errors: int = 0
    generated_tokens: int = 0
    latency_p50_s: float | None = None
    latency_p95_s: float | None = None


class Health(BaseModel):
    """``loaded`` maps checkpoint ids to weights digests; ``conditions`` is None before anything is loaded.

    ``problem`` is the reason why a model that should be live is not, or names the thread that has ended or stalled.
    Switches with a token below ``highest_fencing_token`` are refused.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    live: Live | None
    loaded: dict[str, str]
    waiting: int
    uptime_s: float
    problem: str | None = None
    conditions: Conditions | None = None
    highest_fencing_token: int = 0


@runtime_checkable
class InferenceServer(Protocol):
    """Holds several checkpoints, one of them live.

    Every method raises ServingError, with the reason, if the server refuses, and TransientError if it cannot be
    reached. All are idempotent.
    """

    def load(self, checkpoint_id: str, path: str, weights: str) -> None:
        """Load another folder. Raises ServingError for a wrong digest, a missing file, or weights that are NaN."""
        ...

    def unload(self, checkpoint_id: str) -> None:
        """Free a checkpoint once its requests are answered, unless it is live. No-op if it is not loaded."""
        ...

    def switch(self, checkpoint_id: str, fencing_token: int, certainty: Certainty | None = None) -> None:
        """Make a loaded checkpoint live, with its calibration. Raises ServingError for a stale fencing token."""
        ...

    def score(self, checkpoint_id: str, chats: Sequence[Chat], answers: Sequence[Reply]) -> list[tuple[float, ...]]:
        """Teacher-forced log-probabilities of each answer's tokens (and a text's end token)."""
        ...

    def generate(self, checkpoint_id: str, chats: Sequence[Chat], decoding: Decoding) -> list[Generation]:
        """Answers of a loaded checkpoint. Raises ServingError if the queue for its clients does not answer."""
        ...

    def live(self) -> Live | None: ...

    def health(self) -> Health: ...

    def stats(self, checkpoint_id: str) -> Traffic: ...


CheckpointId = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$")]

BROKEN_CHECKPOINT = "broken_checkpoint"
"""Error code of a load whose files are damaged or do not have the requested digest."""


class Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class LoadRequest(Body):
    """``weights`` is the digest that the folder ``path`` must have."""

    checkpoint_id: CheckpointId
    path: str = Field(min_length=1)
    weights: str = Field(min_length=1)


class UnloadRequest(Body):
    checkpoint_id: CheckpointId


class SwitchRequest(Body):
    checkpoint_id: CheckpointId
    fencing_token: int = Field(ge=0)
    certainty: Certainty | None = None


class ScoreRequest(Body):
    """``answers[i]``, a text or its tokens, is scored as the reply to ``chats[i]``."""

    checkpoint_id: CheckpointId
    chats: tuple[tuple[Message, ...], ...]
    answers: tuple[Reply, ...]


class ScoreResponse(Body):
    weights: str
    logprobs: tuple[tuple[float, ...], ...]


class GenerateRequest(Body):
    checkpoint_id: CheckpointId
    chats: tuple[tuple[Message, ...], ...]
    decoding: Decoding


class GenerateResponse(Body):
    generations: tuple[Generation, ...]
