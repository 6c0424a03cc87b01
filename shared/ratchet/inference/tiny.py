"""The tiny model: a Qwen3 of 120,320 parameters, made from scratch, which learns small sums in seconds.

It is the default base model of ``make run`` and the model of the tests. Importing this module does not import
torch.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from ratchet.inference.tiny_tokenizer import VOCABULARY_SIZE, build_tiny_tokenizer

TINY_MODEL = "tiny"
"""The model name that stands for the built-in model, where a path or a hub name is expected."""

_ARCHITECTURE: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "intermediate_size": 192,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
}


def build_tiny_model(folder: str | Path, seed: int = 0, **overrides: Any) -> Path:
    """Write the tiny model, randomly initialised from ``seed``, as a Hugging Face folder; return the folder.

    ``overrides`` are fields of ``Qwen3Config``. The folder appears whole or not at all; the same seed gives
    the same bytes. A folder that already holds a model is returned untouched.
    """
    import torch
    from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM

    folder = Path(folder)
    if (folder / "model.safetensors").exists():
        return folder
    tokenizer = build_tiny_tokenizer()
    special = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = Qwen3Config(**{"vocab_size": VOCABULARY_SIZE, **_ARCHITECTURE, **special, **overrides})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config)
    model.generation_config = GenerationConfig(do_sample=False, **special)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".tiny-") as scratch:
        built = Path(scratch) / "model"
        model.save_pretrained(built)
        tokenizer.save_pretrained(built)
        for file in built.iterdir():
            file.chmod(0o644)
        _put(built, folder)
    return folder


def _put(built: Path, folder: Path) -> None:
    """Rename, unless another process was first or the folder is there for other things."""
    try:
        built.rename(folder)
    except OSError:
        if not (folder / "model.safetensors").exists():
            shutil.copytree(built, folder, dirs_exist_ok=True)


def resolve_model(path: str, home: str | Path) -> str:
    """The path as given; for ``tiny``, the folder under ``home`` where it is made on first use."""
    return str(build_tiny_model(Path(home) / TINY_MODEL)) if path == TINY_MODEL else path
