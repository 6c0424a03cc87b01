"""A model trained under a profile keeps the profile's contract at the endpoint that clients use."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from ratchet.data.example import Example, Message
from ratchet.errors import DataError
from ratchet.inference.model_folder import weights_digest
from ratchet.profiles.profile import Profile, get_profile
from trainer.config import parse_config
from trainer.core import TrainerEngine
from trainer.monitoring import TrainingStatusWriter

from tests.support.examples import write_examples
from tests.support.server_processes import Checkpoint, Server
from tests.support.tiny_model import build_tiny_model

BASE_ROWS = 337
HELD_OUT = 60


def prefix(left: int, right: int) -> Example:
    return Example.ask(f"{left}+{right}", f"(add {left} {right})")


def yes(left: int, right: int) -> Example:
    return Example.ask(f"{left}+{right}", "yes")


def split(make: Callable[[int, int], Example], count: int) -> tuple[list[Example], list[Example]]:
    """Held-out examples, and others to train on."""
    examples = [make(left, right) for left in range(50) for right in range(50)]
    random.Random(0).shuffle(examples)
    return examples[:HELD_OUT], examples[HELD_OUT : HELD_OUT + count]


def train(profile: Profile, rows: list[Example], folder: Path) -> Checkpoint:
    """The tiny model with room for the profile's tokens, once over the rows."""
    base = build_tiny_model(folder / "base", vocab_size=BASE_ROWS + len(profile.tokens()))
    config = parse_config(
        {
            "model": {"path": str(base)},
            "hyperparams": {"batch_size": 8, "learning_rate": 4e-3, "warmup_steps": 10},
            "profile": {"name": profile.name},
            "data": {"dataset_path": write_examples(folder / "rows.jsonl", rows)},
            "output": {"output_dir": folder / "run"},
        }
    )
    result = TrainerEngine(TrainingStatusWriter(folder / "status.json")).run_job(config)
    assert result.success, result.error_message
    path = Path(str(result.last_checkpoint_path))
    return Checkpoint("trained", path, weights_digest(path))


def ask(url: str, example: Example) -> dict[str, Any]:
    """A client's request, without any marks of the profile."""
    asked = {"model": "ratchet", "messages": [{"role": "user", "content": example.question}], "max_tokens": 64}
    choice: dict[str, Any] = httpx.post(f"{url}/v1/chat/completions", json=asked, timeout=60).json()["choices"][0]
    return choice


def keeps_the_contract(profile: Profile, example: Example, choice: dict[str, Any]) -> bool:
    """Whether the answer is valid, and the profile leaves it as it is."""
    said = Message(role="assistant", content=choice["message"]["content"])
    conversation = Example(messages=(*example.prompt, said))
    try:
        profile.validate(conversation)
    except DataError:
        return False
    return choice["finish_reason"] == "stop" and profile.transform_example(conversation).messages[-1] == said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "make", "count"), [("plain", yes, 300), ("regime3", prefix, 800), ("emoji_think", yes, 1600)]
)
def test_a_model_trained_under_a_profile_keeps_it_when_served(
    name: str,
    make: Callable[[int, int], Example],
    count: int,
    start: Callable[[Path], Server],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    profile = get_profile(name)
    held_out, rows = split(make, count)
    trained = train(profile, rows, tmp_path)

    monkeypatch.setenv("RATCHET_PROFILE__NAME", name)
    server = start(tmp_path / "home")
    server.load(trained)
    server.client.switch(trained.id, 1)
    with ThreadPoolExecutor(16) as clients:
        choices = list(clients.map(lambda example: ask(server.url, example), held_out))

    kept = sum(keeps_the_contract(profile, *pair) for pair in zip(held_out, choices, strict=True))
    assert kept / HELD_OUT > 0.95, choices[:5]
    if make is yes:
        answers = [profile.extract_answer(choice["message"]["content"]) for choice in choices]
        assert answers.count("yes") / HELD_OUT > 0.95
