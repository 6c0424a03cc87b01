"""The tiny model: a randomly initialised Qwen3 with 120,320 parameters, which learns small sums in seconds.

It is the default base model of ``make run`` and the model of the tests. Its tokenizer has 256 bytes, 76 word pieces and
5 special tokens, built from constants alone. Digits and letters stay single tokens, so that arithmetic and string
tasks are learned character by character; any UTF-8 text round-trips. Importing this module does not import torch.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


TINY_MODEL = "tiny"
"""The name of the built-in model, accepted in place of a path or a hub name."""

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
VOCABULARY_SIZE = 337
PAD = "<|endoftext|>"
END_OF_TURN = "<|im_end|>"
_TURN_OPENERS = ("<|im_start|>user\n", "<|im_start|>assistant\n", "<|im_start|>system\n")
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' -}}"
    "{%- if message['role'] == 'assistant' -%}"
    "{%- generation -%}{{- message['content'] + '<|im_end|>' -}}{%- endgeneration -%}{{- '\\n' -}}"
    "{%- else -%}{{- message['content'] + '<|im_end|>\\n' -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)

_WORDS = """the of and to in is answer number with for find letters digits what this that are result all each
write from be by"""

_SPACE = "Ġ"


def build_tiny_model(folder: str | Path, seed: int = 0, **overrides: Any) -> Path:
    """Write the tiny model, randomly initialised from ``seed``, as a Hugging Face folder; return the folder.

    ``overrides`` are fields of ``Qwen3Config``. The folder is created atomically; the same seed gives the same bytes.
    A folder that already contains a model is returned unchanged.
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
    """Rename ``built`` to ``folder``. If that exists without a model, copy the files into it."""
    try:
        built.rename(folder)
    except OSError:
        if not (folder / "model.safetensors").exists():
            shutil.copytree(built, folder, dirs_exist_ok=True)


def resolve_model(path: str, home: str | Path) -> str:
    """The path as given; for ``tiny``, the folder under ``home``, which is built on first use."""
    return str(build_tiny_model(Path(home) / TINY_MODEL)) if path == TINY_MODEL else path


def build_tiny_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer with its chat template; the same on every machine."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    merges = word_merges()
    pieces = [*byte_alphabet(), *("".join(pair) for pair in merges)]
    tokenizer = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in (PAD, END_OF_TURN, *_TURN_OPENERS)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END_OF_TURN, pad_token=PAD, chat_template=CHAT_TEMPLATE
    )


def byte_alphabet() -> list[str]:
    """The 256 printable characters that represent bytes, in byte order (the GPT-2 table)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    substitutes = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(substitutes)) for byte in range(256)]


def word_merges() -> list[tuple[str, str]]:
    """The BPE merges that build each word after a space, letter by letter, without repeats."""
    merges: dict[tuple[str, str], None] = {}
    for word in _WORDS.split():
        piece = _SPACE
        for letter in word:
            merges[(piece, letter)] = None
            piece += letter
    return list(merges)
