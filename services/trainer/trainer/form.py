"""What of a model is trained: all weights, or adapters on frozen ones. Needs no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ratchet.settings.training import ModelSettings

FULL = "full"
STATE_FILE = "state.json"


def form_of(model: ModelSettings) -> str:
    """Equal for two settings exactly if a state of the one can be gone on from with the other."""
    if not model.lora_rank:
        return FULL
    bits = 4 if model.load_in_4bit else 16
    targets = "+".join(model.lora_targets) or "all"
    return f"lora rank={model.lora_rank} alpha={model.lora_scale:g} targets={targets} bits={bits}"


@dataclass(frozen=True)
class StateFacts:
    """What a saved state says of itself: what was trained, and the digest of the weights that it has to be put on."""

    form: str
    weights: str


def facts_of_state(folder: Path) -> StateFacts | None:
    """None where its file cannot be read."""
    try:
        told = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
        return StateFacts(str(told.get("form", FULL)), str(told.get("base") or told["weights"]))
    except (OSError, ValueError, AttributeError, KeyError):
        return None
