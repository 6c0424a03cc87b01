from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from ratchet.inference.model_folder import check_folder, weights_digest
from ratchet.inference.tiny import VOCABULARY_SIZE, build_tiny_model, build_tiny_tokenizer, resolve_model
from transformers import AutoModelForCausalLM, AutoTokenizer


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    digests = [weights_digest(build_tiny_model(tmp_path / name, seed)) for name, seed in (("a", 0), ("b", 0), ("c", 1))]
    assert digests[0] == digests[1] != digests[2]


def test_the_model_is_a_whole_folder_of_the_documented_size(tmp_path: Path) -> None:
    folder = build_tiny_model(tmp_path / "tiny")
    check_folder(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert sum(parameter.numel() for parameter in model.parameters()) == 120_320
    assert len(AutoTokenizer.from_pretrained(folder)) == VOCABULARY_SIZE == model.config.vocab_size
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o644}


def test_overrides_shape_the_model(tmp_path: Path) -> None:
    folder = build_tiny_model(tmp_path / "wide", hidden_size=96, num_hidden_layers=3)
    config = json.loads((folder / "config.json").read_text())
    assert (config["hidden_size"], config["num_hidden_layers"]) == (96, 3)


def test_an_existing_model_is_not_rebuilt(tmp_path: Path) -> None:
    folder = build_tiny_model(tmp_path / "tiny")
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert build_tiny_model(folder, seed=5) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == before


def test_only_the_name_tiny_is_resolved(tmp_path: Path) -> None:
    assert resolve_model("some/model", tmp_path) == "some/model"
    assert resolve_model("tiny", tmp_path) == str(tmp_path / "tiny")
    check_folder(tmp_path / "tiny")


@pytest.mark.parametrize(
    "text", ["8+0=8;8+15=23", "the answer is 42", "héllo 🤔🛡️ 日本", "a\n\n\tb  c ", "①⓪", "", "\x00\x7f"]
)
def test_any_text_round_trips(text: str) -> None:
    tokenizer = build_tiny_tokenizer()
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_digits_and_letters_are_single_tokens_and_words_after_a_space_are_not() -> None:
    tokenizer = build_tiny_tokenizer()
    assert tokenizer.tokenize("120") == ["1", "2", "0"]
    assert tokenizer.tokenize("the") == ["t", "h", "e"]
    assert tokenizer.tokenize("is the") == ["i", "s", "Ġthe"]
    assert tokenizer.tokenize("<|im_start|>assistant\n7<|im_end|>") == ["<|im_start|>assistant\n", "7", "<|im_end|>"]


def test_the_template_marks_the_assistant_turns() -> None:
    chat = [{"role": "user", "content": "2+3="}, {"role": "assistant", "content": "5"}]
    rendered = build_tiny_tokenizer().apply_chat_template(chat, return_dict=True, return_assistant_tokens_mask=True)
    marked = [token for token, mark in zip(rendered["input_ids"], rendered["assistant_masks"], strict=True) if mark]
    assert build_tiny_tokenizer().decode(marked) == "5<|im_end|>"


def test_importing_the_module_imports_no_torch() -> None:
    code = "import sys, ratchet.inference.tiny, tests.support.tiny_model; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
