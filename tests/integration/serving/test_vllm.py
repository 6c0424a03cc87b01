"""vLLM behind the server: processes of our own, adapters beside each other, and what happens when vLLM dies."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ratchet.data.example import Message
from ratchet.errors import BrokenCheckpoint, ServingError, TransientError
from ratchet.inference.digest import weights_digest
from ratchet.inference.generator import Chat, Decoding
from ratchet.serving.vllm.engine import VllmEngine
from ratchet.serving.vllm.generator import VllmGenerator
from ratchet.settings import Settings
from safetensors.numpy import load_file, save_file

from tests.support.workers import wait_until

from .conftest import START_S, Checkpoint

CHATS: list[Chat] = [(Message(role="user", content=f"{number}+{number}="),) for number in range(6)]
DECODING = Decoding(max_new_tokens=8)
FAKE = Path(__file__).parent / "fake_vllm.py"
COMMAND = f"{sys.executable} -W error {FAKE} serve {{path}} --served-model-name {{name}} --port {{port}}"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[VllmEngine]:
    """Starts a process for each checkpoint."""
    settings = Settings(serving={"engine": "vllm", "vllm_command": COMMAND, "vllm_adapter_options": "--enable-lora"})
    engine = VllmEngine(settings, tmp_path / "vllm.log")
    yield engine
    engine.close()


def said(generator: VllmGenerator) -> list[tuple[int, ...]]:
    return [answer.token_ids for answer in generator.generate(CHATS, DECODING)]


def test_each_checkpoint_has_a_process_which_is_replaced_when_it_dies_and_ends_when_it_is_unloaded(
    engine: VllmEngine, blue: Checkpoint, green: Checkpoint
) -> None:
    first, second = engine(blue.path, blue.weights), engine(green.path, green.weights)
    was = said(first)
    assert was != said(second)
    processes = list(engine.processes)
    assert len(processes) == 2
    processes[0].kill()

    def is_back() -> bool:
        try:
            return said(first) == was
        except TransientError:
            return False

    wait_until(is_back, START_S, "vLLM to be started again")
    second.close()
    assert processes[1].poll() is not None
    assert said(first) == was
    with pytest.raises(TransientError):
        said(second)


def test_adapters_sit_beside_each_other_in_their_bases_process(
    engine: VllmEngine, blue: Checkpoint, tmp_path: Path
) -> None:
    one, other = (adapter(tmp_path / name, blue.path, seed, blue.path) for name, seed in (("one", 1), ("other", 2)))
    first, second = engine(one, weights_digest(one)), engine(other, weights_digest(other))
    assert len(engine.processes) == 1
    was = said(first)
    assert was != said(second)
    scored = first.score(CHATS, [answer.token_ids for answer in first.generate(CHATS, DECODING)])
    assert [len(row) for row in scored] == [len(row) for row in was]
    second.close()
    assert said(first) == was
    with pytest.raises(Exception, match="does not exist"):
        said(second)
    first.close()
    again = engine(other, weights_digest(other))
    assert len(engine.processes) == 1
    assert again.context == 1024


def test_a_checkpoint_with_adapters_beside_its_merged_weights_is_served_as_either(
    engine: VllmEngine, blue: Checkpoint, green: Checkpoint, tmp_path: Path
) -> None:
    trained = shutil.copytree(green.path, tmp_path / "trained")
    adapter(trained / "adapter", None, 1, blue.path)
    merged = engine(trained, green.weights)
    serving = engine.settings.serving.model_copy(update={"vllm_adapter_base": blue.path})
    other = VllmEngine(engine.settings.model_copy(update={"serving": serving}), tmp_path / "other.log")
    beside = other(trained, green.weights)
    assert beside.weights == merged.weights == green.weights
    assert said(beside) != said(merged) == said(engine(green.path, green.weights))
    other.close()


def test_what_is_broken_never_reaches_vllm(engine: VllmEngine, blue: Checkpoint, tmp_path: Path) -> None:
    bad = shutil.copytree(blue.path, tmp_path / "bad")
    tensors = load_file(bad / "model.safetensors")
    tensors["model.norm.weight"] = np.full_like(tensors["model.norm.weight"], np.nan)
    save_file(tensors, bad / "model.safetensors", {"format": "pt"})
    with pytest.raises(BrokenCheckpoint, match=r"model\.norm\.weight holds NaN"):
        engine(bad, weights_digest(bad))
    with pytest.raises(BrokenCheckpoint, match="not the expected"):
        engine(blue.path, weights_digest(bad))
    assert engine.processes == ()


def test_a_profile_that_steers_decoding_by_code_is_refused(blue: Checkpoint, tmp_path: Path) -> None:
    settings = Settings(serving={"engine": "vllm", "vllm_command": COMMAND}, profile={"name": "emoji_think"})
    engine = VllmEngine(settings, tmp_path / "vllm.log")
    with pytest.raises(BrokenCheckpoint, match=r"serving\.engine = embedded"):
        engine(blue.path, blue.weights)
    engine.close()


def test_a_command_that_fails_is_quoted_with_what_it_said(blue: Checkpoint, tmp_path: Path) -> None:
    says = "import sys; sys.exit('no GPU here: ' + ' '.join(sys.argv[1:]))"
    command = f"{sys.executable} -c {shlex.quote(says)} {{path}} {{name}} {{port}}"
    engine = VllmEngine(Settings(serving={"engine": "vllm", "vllm_command": command}), tmp_path / "vllm.log")
    with pytest.raises(ServingError, match=r"(?s)ended with code 1: .*no GPU here"):
        engine(blue.path, blue.weights)
    engine.close()


def adapter(folder: Path, named: Path | None, seed: int, base: Path) -> Path:
    """A made-up adapter, in the layout that peft writes; ``named`` is the base that it names."""
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": named and str(named), "r": 8}))
    table = load_file(base / "model.safetensors")["model.embed_tokens.weight"]
    noise = np.random.default_rng(seed).normal(size=table.shape).astype(np.float32)
    save_file({"delta": noise}, folder / "adapter_model.safetensors")
    return folder
