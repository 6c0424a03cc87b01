"""The tokenizer of a model's folder for those who render and count rows, read without transformers.

It has as much of a Hugging Face tokenizer as chat_template uses, and gives the same ids.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ratchet.errors import BrokenCheckpoint
from ratchet.inference.model_folder import read_json
from ratchet.user_files import read_text

_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class TokenizerFiles:
    """A folder's ``tokenizer.json``, ``tokenizer_config.json`` and chat template; ``name`` is for errors.

    Raises BrokenCheckpoint for a folder without ``tokenizer.json``, or with a file that is malformed.
    """

    def __init__(self, folder: Path, name: str):
        from tokenizers import Tokenizer

        file = folder / "tokenizer.json"
        if not file.is_file():
            raise BrokenCheckpoint(f"{file} is not there; rows are counted with the model's tokenizer.json.")
        self.name_or_path = name
        self.backend_tokenizer: Any = Tokenizer.from_file(str(file))
        self.backend_tokenizer.no_truncation()
        self.backend_tokenizer.no_padding()
        self.init_kwargs = {
            **_fields(folder / "special_tokens_map.json"),
            **_fields(folder / "tokenizer_config.json"),
        }
        self.special_tokens_map = {
            name: text for name in _SPECIAL if (text := _text(self.init_kwargs.get(name))) is not None
        }
        self.unk_token = self.special_tokens_map.get("unk_token")
        self.bos_token = self.special_tokens_map.get("bos_token")
        self._folder = folder

    @cached_property
    def chat_template(self) -> str | dict[str, str] | None:
        """The template, or several by name."""
        if (self._folder / "chat_template.jinja").exists():
            return read_text(self._folder / "chat_template.jinja", BrokenCheckpoint)
        found = _fields(self._folder / "chat_template.json").get("chat_template")
        found = found or self.init_kwargs.get("chat_template")
        if isinstance(found, list):
            return {entry["name"]: entry["template"] for entry in found}
        return found

    @property
    def added_tokens_decoder(self) -> dict[int, Any]:
        """The added tokens by id."""
        found: dict[int, Any] = self.backend_tokenizer.get_added_tokens_decoder()
        return found

    @property
    def bos_token_id(self) -> int | None:
        return None if self.bos_token is None else self.backend_tokenizer.token_to_id(self.bos_token)

    def get_added_vocab(self) -> dict[str, int]:
        """The ids of the added tokens by their texts."""
        return {token.content: number for number, token in self.added_tokens_decoder.items()}

    def __call__(self, text: str) -> SimpleNamespace:
        """The token ids of a text with the special tokens around it, as ``input_ids``."""
        return SimpleNamespace(input_ids=self.backend_tokenizer.encode(text).ids)


def _fields(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _text(token: Any) -> str | None:
    """A special token, which some files describe with its flags."""
    return token.get("content") if isinstance(token, dict) else token
