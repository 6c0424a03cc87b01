"""What a model folder says of itself, and whether that is what was locked. Needs no torch."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratchet.errors import BrokenCheckpoint, SettingsError
from ratchet.inference.folder import CONFIG, TOKENIZERS, read_json
from ratchet.settings.locked import LockedSettings

UNKNOWN = "unknown"


@dataclass(frozen=True)
class ModelFacts:
    """From ``config.json`` and the tokenizer's files. None where they do not say it."""

    model_architecture: str
    max_context_length: int | None
    vocab_size: int | None
    """Rows of the embedding."""
    tokens: int | None
    """Tokens that the tokenizer knows: at most ``vocab_size``."""
    vocabulary: str
    """Hex sha256 of the tokens and their numbers."""

    def recorded(self) -> dict[str, str]:
        """As the ledger keeps them."""
        return {
            "model_architecture": self.model_architecture,
            "max_context_length": str(self.max_context_length or UNKNOWN),
            "vocab_size": str(self.vocab_size or UNKNOWN),
            "vocabulary": self.vocabulary,
        }


def model_facts(folder: Path, tokenizer: Path | None = None) -> ModelFacts:
    """Facts of a folder, with the tokenizer of another where it is not the model's own. Raises BrokenCheckpoint."""
    config = read_json(folder / CONFIG)
    text: dict[str, Any] = config.get("text_config", config)
    tokens, vocabulary = _vocabulary(tokenizer or folder)
    return ModelFacts(
        model_architecture=",".join(config.get("architectures") or [UNKNOWN]),
        max_context_length=text.get("max_position_embeddings"),
        vocab_size=text.get("vocab_size"),
        tokens=tokens,
        vocabulary=vocabulary,
    )


def hold(locked: LockedSettings, facts: ModelFacts, max_length: int, model: str) -> ModelFacts:
    """The facts with the context that is kept to. Raises SettingsError, naming both values and the way out."""
    for name in ("model_architecture", "vocab_size"):
        wanted, found = getattr(locked, name), getattr(facts, name)
        if wanted is not None and wanted != found:
            raise SettingsError(
                f"locked.{name} is {wanted}, but {model} has {found} in its config.json. Take the model that is meant "
                f"(model.path), or set locked.{name} to {found}."
            )
    if facts.tokens is not None and facts.vocab_size is not None and facts.tokens > facts.vocab_size:
        raise SettingsError(
            f"the tokenizer knows {facts.tokens} tokens, but {model} has an embedding of {facts.vocab_size}. Take the "
            "tokenizer that belongs to the model (model.tokenizer_path)."
        )
    own, wanted = facts.max_context_length, locked.max_context_length
    if own is not None and wanted is not None and wanted > own:
        raise SettingsError(
            f"locked.max_context_length is {wanted}, but {model} has {own} in its config.json. Set it to {own} or less."
        )
    context = wanted or own
    if context is not None and max_length > context:
        raise SettingsError(
            f"hyperparams.max_length {max_length} exceeds the context length of {context}. Set it to {context} or less."
        )
    return ModelFacts(facts.model_architecture, context, facts.vocab_size, facts.tokens, facts.vocabulary)


def _vocabulary(folder: Path) -> tuple[int | None, str]:
    """How many tokens there are, and a digest of them."""
    file = next((folder / name for name in TOKENIZERS if (folder / name).is_file()), None)
    if file is None:
        raise BrokenCheckpoint(f"{folder} has no tokenizer: one of {', '.join(TOKENIZERS)} is expected.")
    if file.suffix != ".json":
        return None, hashlib.sha256(file.read_bytes()).hexdigest()
    tree = read_json(file)
    known: Any = tree.get("model", {}).get("vocab", {}) if "model" in tree else tree
    pairs = known.items() if isinstance(known, dict) else ((entry[0], row) for row, entry in enumerate(known))
    table = {str(token): int(row) for token, row in pairs}
    table |= {str(added["content"]): int(added["id"]) for added in tree.get("added_tokens", ())}
    canonical = json.dumps(sorted(table.items()), ensure_ascii=True, separators=(",", ":"))
    return len(table), hashlib.sha256(canonical.encode()).hexdigest()
