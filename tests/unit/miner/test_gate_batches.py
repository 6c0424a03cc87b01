from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from miner.gate_batches import TURN_TOKENS, TokenCounter
from ratchet.data.example import Example
from ratchet.errors import DataError
from ratchet.inference.tiny import build_tiny_tokenizer


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    build_tiny_tokenizer().save_pretrained(folder)
    return folder / "tokenizer.json"


def test_counts_every_turn_with_what_surrounds_it(tokenizer_file: Path) -> None:
    count = TokenCounter(tokenizer_file)
    assert count(Example.ask("12+3=", "12+3=15")) == 5 + 7 + 2 * TURN_TOKENS


def test_is_no_less_than_the_chat_template_makes(tokenizer_file: Path) -> None:
    tokenizer = build_tiny_tokenizer()
    for question, answer in (("12+3=", "12+3=15"), ("⓪①, sort:72", "é"), ("the answer is", "x " * 50)):
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        rendered = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False)
        counted = TokenCounter(tokenizer_file)(Example.ask(question, answer))
        assert len(rendered) <= counted <= len(rendered) + 2 * TURN_TOKENS


def test_a_missing_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not there"):
        TokenCounter(tmp_path / "tokenizer.json")


def test_the_gate_needs_no_torch() -> None:
    program = (
        "import sys, miner.data_gate, miner.gate_batches;"
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'scipy', 'celery', 'sqlalchemy')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
