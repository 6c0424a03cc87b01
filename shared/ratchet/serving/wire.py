"""Bodies of the administrative requests and answers."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from ratchet.data.example import Message
from ratchet.evaluation.confidence import Certainty
from ratchet.inference.generator import Decoding, Generation, Reply

CheckpointId = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$")]


BROKEN_CHECKPOINT = "broken_checkpoint"
"""Code of the refusal to load files that are damaged, or not those that were named."""


class Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Load(Body):
    """``weights`` is the digest that the folder ``path`` must have."""

    checkpoint_id: CheckpointId
    path: str = Field(min_length=1)
    weights: str = Field(min_length=1)


class Unload(Body):
    checkpoint_id: CheckpointId


class Switch(Body):
    checkpoint_id: CheckpointId
    fencing_token: int = Field(ge=0)
    certainty: Certainty | None = None


class Score(Body):
    """``answers[i]``, a text or its tokens, is scored as the reply to ``chats[i]``."""

    checkpoint_id: CheckpointId
    chats: tuple[tuple[Message, ...], ...]
    answers: tuple[Reply, ...]


class Scores(Body):
    weights: str
    logprobs: tuple[tuple[float, ...], ...]


class Generate(Body):
    checkpoint_id: CheckpointId
    chats: tuple[tuple[Message, ...], ...]
    decoding: Decoding


class Generations(Body):
    generations: tuple[Generation, ...]
