"""The task ``general``: what a pretrained model can do already, held by the base model's own answers to common prompts.

A fine-tuned model drifts away from its base, and a narrow task can make it forget how to answer anything else. So the
base model answers a list of prompts at the first run. Some answers are held out: a checkpoint's loss on them, less the
base's own, is its drift, which the gate bounds. The others are replayed in training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ratchet.data.example import Example, Message
from ratchet.data.jsonl import read_examples
from ratchet.errors import DataError, SettingsError
from ratchet.evaluation.record import GENERAL
from ratchet.evaluation.suite import POOLS, Pool
from ratchet.settings.serving import InferenceSettings
from ratchet.tasks.graders import text_key
from ratchet.user_tasks.task import Task

TASK = Task(name=GENERAL, kind="general", metric="loss")

REPLAY = "replay"
"""Key of TaskRow.held_out for the artifact with the rows that are replayed in training."""

HELD_OUT: Mapping[Pool, int] = {"probe": 8, "eval": 26, "confirm": 26}
"""Held-out prompts by pool; the others are replayed."""

FEWEST = sum(HELD_OUT.values()) // 2
"""Usable answers from which on there is a task ``general``: an untrained model ends hardly any."""

ANSWER_TOKENS = 96
"""Longest answer of the base model; one that is longer is not used, since it has no end to be measured or taught."""


class GeneralSpec(BaseModel):
    """What the child answers: the prompts, with the base model in ``folder`` and the configured system turn.

    ``max_length`` is the longest row in tokens that training takes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path
    prompts: tuple[str, ...]
    max_length: int
    inference: InferenceSettings
    profile: str
    profile_options: dict[str, Any]
    template_variables: dict[str, Any] = Field(default_factory=dict)
    system_prompt: str
    day: str


def read_prompts(chosen: Path | str) -> tuple[str, ...]:
    """The prompts that a setting names: ``builtin``, ``none``, or a file, each once however it is written.

    Raises SettingsError for an unusable file.
    """
    if chosen == "none":
        return ()
    if chosen == "builtin":
        text = files("ratchet.user_tasks").joinpath("general_prompts.txt").read_text(encoding="utf-8")
        return tuple(line for line in text.split("\n") if line)
    prompts: dict[str, str] = {}
    try:
        for _, row in read_examples(Path(chosen)):
            if isinstance(row, DataError):
                raise row
            prompts.setdefault(text_key(Example.ask(row.question, "")), row.question)
    except DataError as error:
        raise SettingsError(f"suites.general_prompts: {error}") from error
    return tuple(prompts.values())


def answer_prompts(spec: dict[str, Any], progress: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """In a child: the base model's greedy answers to a GeneralSpec's prompts.

    None for an answer that did not end in time, or whose row would be too long to be trained on.
    """
    from ratchet.inference.generator import Decoding
    from ratchet.inference.local_generator import LocalGenerator
    from ratchet.inference.prompt_format import PromptFormat

    order = GeneralSpec.model_validate(spec)
    prompt_format = PromptFormat.named(
        order.profile, order.profile_options, order.system_prompt, order.day, order.template_variables
    )
    generator = LocalGenerator.load(order.folder, order.inference, prompt_format=prompt_format)
    generator.report_steps_to(lambda: progress({"note": "the base model answers general prompts"}))
    answers: list[str | None] = [None] * len(order.prompts)
    chats = [(Message(role="user", content=prompt),) for prompt in order.prompts]
    done = 0
    for batch, generations in generator.batches(chats, Decoding(max_new_tokens=ANSWER_TOKENS)):
        for place, generation in zip(batch, generations, strict=True):
            text = prompt_format.parse(generation.text)
            tokens = generation.prompt_tokens + len(generation.token_ids)
            if generation.finish_reason == "stop" and text.strip() and tokens < order.max_length:
                answers[place] = text
        done += len(batch)
        progress({"note": f"general prompts: {done} of {len(chats)}"})
    return {"answers": answers}


def general_rows(
    prompts: Sequence[str], answers: Sequence[str | None]
) -> tuple[dict[Pool, list[Example]], list[Example]]:
    """The held-out rows by pool, and those to replay; both empty if the model ended too few answers to be held by."""
    rows = [
        TASK.labelled(Example.ask(prompt, answer, source=GENERAL))
        for prompt, answer in zip(prompts, answers, strict=True)
        if answer is not None
    ]
    if len(rows) < FEWEST:
        return {pool: [] for pool in POOLS}, []
    scale = min(1.0, len(rows) / (2 * sum(HELD_OUT.values())))
    held: dict[Pool, list[Example]] = {}
    for pool in POOLS:
        size = max(1, int(HELD_OUT[pool] * scale)) if scale < 1 else HELD_OUT[pool]
        held[pool], rows = rows[:size], rows[size:]
    return held, rows
