"""vLLM behind the server: one process for each checkpoint, restarted when it dies."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ratchet.data.example import Message
from ratchet.errors import BrokenCheckpoint, ServingError, TransientError
from ratchet.inference.generator import Chat, Decoding
from ratchet.inference.model_folder import check_folder, weights_digest
from ratchet.serving.vllm_engine import VllmEngine, VllmModel
from ratchet.settings import Settings
from safetensors.numpy import load_file, save_file

from tests.support.adapters import build_adapter
from tests.support.server_processes import START_S, VLLM_COMMAND, Checkpoint
from tests.support.workers import wait_until

CHATS: list[Chat] = [(Message(role="user", content=f"{number}+{number}="),) for number in range(6)]
DECODING = Decoding(max_new_tokens=8)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[VllmEngine]:
    """Starts a process for each checkpoint."""
    settings = Settings(serving={"engine": "vllm", "vllm_command": VLLM_COMMAND})
    engine = VllmEngine(settings, tmp_path / "vllm.log")
    yield engine
    engine.close()


def answers(generator: VllmModel) -> list[tuple[int, ...]]:
    return [answer.token_ids for answer in generator.generate(CHATS, DECODING)]


def test_a_vllm_process_is_restarted_after_it_dies_and_stopped_at_unload(
    engine: VllmEngine, blue: Checkpoint, green: Checkpoint
) -> None:
    first, second = engine(blue.path, blue.weights), engine(green.path, green.weights)
    before = answers(first)
    assert before != answers(second)
    processes = list(engine.processes)
    assert len(processes) == 2
    processes[0].kill()

    def is_back() -> bool:
        try:
            return answers(first) == before
        except TransientError:
            return False

    wait_until(is_back, START_S, "vLLM to be started again")
    second.close()
    assert processes[1].poll() is not None
    assert answers(first) == before
    with pytest.raises(TransientError):
        answers(second)


def test_a_damaged_checkpoint_never_reaches_vllm(engine: VllmEngine, blue: Checkpoint, tmp_path: Path) -> None:
    bad = shutil.copytree(blue.path, tmp_path / "bad")
    tensors = load_file(bad / "model.safetensors")
    tensors["model.norm.weight"] = np.full_like(tensors["model.norm.weight"], np.nan)
    save_file(tensors, bad / "model.safetensors", {"format": "pt"})
    with pytest.raises(BrokenCheckpoint, match=r"model\.norm\.weight holds NaN"):
        engine(bad, weights_digest(bad))
    with pytest.raises(BrokenCheckpoint, match="not the expected"):
        engine(blue.path, weights_digest(bad))
    assert engine.processes == ()


def test_a_profile_with_logits_processors_is_refused(blue: Checkpoint, tmp_path: Path) -> None:
    settings = Settings(serving={"engine": "vllm", "vllm_command": VLLM_COMMAND}, profile={"name": "emoji_think"})
    engine = VllmEngine(settings, tmp_path / "vllm.log")
    with pytest.raises(BrokenCheckpoint, match=r"embedded \(serving\.engine"):
        engine(blue.path, blue.weights)
    engine.close()


def test_a_failing_vllm_command_is_quoted_with_its_output(blue: Checkpoint, tmp_path: Path) -> None:
    says = "import sys; sys.exit('no GPU here: ' + ' '.join(sys.argv[1:]))"
    command = f"{sys.executable} -c {shlex.quote(says)} {{path}} {{name}} {{port}}"
    engine = VllmEngine(Settings(serving={"engine": "vllm", "vllm_command": command}), tmp_path / "vllm.log")
    with pytest.raises(ServingError, match=r"(?s)exited with code 1: .*no GPU here"):
        engine(blue.path, blue.weights)
    engine.close()


def test_adapters_are_merged_into_a_folder_that_lasts_until_they_are_unloaded(
    engine: VllmEngine, blue: Checkpoint, tmp_path: Path
) -> None:
    adapters = build_adapter(tmp_path / "adapters", blue.path)
    loaded = engine(adapters, weights_digest(adapters))
    (folder,) = (tmp_path / "merged").iterdir()
    assert loaded.weights == weights_digest(adapters)
    assert weights_digest(folder) != blue.weights
    check_folder(folder)
    assert all(answers(loaded))
    loaded.close()
    assert not folder.exists()
    with pytest.raises(BrokenCheckpoint, match="not the expected"):
        engine(adapters, blue.weights)
