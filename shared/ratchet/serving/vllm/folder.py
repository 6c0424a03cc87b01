"""A checkpoint's folder before vLLM is told of it: a bad one would take vLLM's engine down."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ratchet.errors import BrokenCheckpoint
from ratchet.inference.digest import weights_digest
from ratchet.inference.folder import TOKENIZERS, check_folder, check_safetensors, read_json

ADAPTER = "adapter_config.json"
BESIDE = "adapter"
"""Where a checkpoint that was trained by adapters keeps them, beside the merged weights."""


@dataclass(frozen=True)
class ServedFolder:
    """Verified. ``base`` is the folder of an adapter's base model, None for whole weights.

    ``name`` is what vLLM is to call it: a new name for other weights, so that nothing is mixed up with what was
    cached under an old one.
    """

    path: Path
    weights: str
    base: Path | None

    @property
    def name(self) -> str:
        return f"ratchet-{self.weights[:16]}"

    @property
    def whole(self) -> Path:
        """Where the architecture is described."""
        return self.base or self.path

    @property
    def tokenizer(self) -> Path:
        """The folder whose tokenizer counts: an adapter's own, if it has one."""
        has_own = any((self.path / name).is_file() for name in TOKENIZERS)
        return self.path if has_own else self.whole


def verified(path: Path, weights: str, adapter_base: Path | None = None) -> ServedFolder:
    """Raises BrokenCheckpoint, naming what is wrong: a file, the digest, weights that are not finite.

    With ``adapter_base``, adapters that lie beside merged weights are served in the weights' place; whether they come
    to the same is what the canary finds out. A folder of adapters alone names its base itself.
    """
    base = None
    if (path / ADAPTER).is_file():
        base = adapter_base or Path(str(read_json(path / ADAPTER).get("base_model_name_or_path")))
        check_folder(base)
        for file in path.glob("*.safetensors"):
            check_safetensors(file)
    else:
        check_folder(path)
    found = weights_digest(path)
    if found != weights:
        raise BrokenCheckpoint(f"{path} holds weights {found[:12]}…, not the expected {weights[:12]}….")
    _require_finite(path)
    if adapter_base is not None and (path / BESIDE / ADAPTER).is_file():
        _require_finite(path / BESIDE)
        return ServedFolder((path / BESIDE).resolve(), weights, adapter_base)
    return ServedFolder(path.resolve(), weights, base)


def _require_finite(path: Path) -> None:
    import torch
    from safetensors import safe_open

    for file in sorted(path.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  (safetensors knows no other way)
                tensor = tensors.get_tensor(name)
                if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                    raise BrokenCheckpoint(f"{file}: tensor {name} holds NaN or infinite weights.")
