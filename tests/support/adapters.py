"""A checkpoint of adapters, made without training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from ratchet.inference.adapter_folder import ADAPTER_CONFIG, BaseReference
from ratchet.inference.model_folder import ADAPTER, SINGLE, read_header, weights_digest
from safetensors.numpy import save_file

RANK, ALPHA = 2, 8
TARGETS = ("q_proj", "down_proj")


def build_adapter(folder: Path, base: Path, *, seed: int = 0, name: str = "acme/base") -> Path:
    """Write random adapters on two layers of each block of ``base``, large enough to change answers."""
    folder.mkdir(parents=True)
    draw, tensors = np.random.default_rng(seed), {}
    for weight, entry in read_header(base / SINGLE).items():
        layer = weight.removesuffix(".weight")
        if layer.rpartition(".")[2] in TARGETS:
            rows, columns = entry["shape"]
            tensors[f"base_model.model.{layer}.lora_A.weight"] = draw.normal(0, 0.1, (RANK, columns))
            tensors[f"base_model.model.{layer}.lora_B.weight"] = draw.normal(0, 0.1, (rows, RANK))
    save_file({key: tensor.astype(np.float32) for key, tensor in tensors.items()}, folder / ADAPTER, {"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": name,
        "r": RANK,
        "lora_alpha": ALPHA,
        "target_modules": list(TARGETS),
        "inference_mode": True,
    }
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config))
    BaseReference.to(base, weights_digest(base), "lora", ALPHA / RANK).write(folder)
    for file in base.iterdir():
        if file.suffix in (".json", ".jinja") and file.name != "manifest.json":
            shutil.copyfile(file, folder / file.name)
    return folder
