"""Teacher-forced log-probabilities of given answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

Scored = tuple[Sequence[int], Sequence[int]]
"""Token ids of a prompt, and of the answer to it."""


@torch.inference_mode()
def score_batch(model: Any, rows: Sequence[Scored], pad_id: int) -> list[tuple[float, ...]]:
    """Natural-log probabilities of each answer's tokens, in one left-padded forward pass.

    Logits are asked for at the answers' places only: rows × (longest answer + 1) × vocabulary.
    """
    lengths = [len(prompt) + len(answer) for prompt, answer in rows]
    width = max(lengths)
    padded = [[pad_id] * (width - n) + [*p, *a] for (p, a), n in zip(rows, lengths, strict=True)]
    tokens = torch.tensor(padded, device=model.device)
    columns = torch.arange(width, device=model.device)
    mask = (columns >= (width - torch.tensor(lengths, device=model.device))[:, None]).long()
    kept = max(len(answer) for _, answer in rows) + 1
    output = model(
        input_ids=tokens,
        attention_mask=mask,
        position_ids=(mask.cumsum(1) - 1).clamp(min=0),
        use_cache=False,
        logits_to_keep=kept,
    )
    logits = output.logits[:, :-1].float()
    targets = tokens[:, -logits.shape[1] :, None]
    logprobs = logits.gather(2, targets)[..., 0] - logits.logsumexp(-1)
    return [tuple(row[len(row) - len(answer) :]) for row, (_, answer) in zip(logprobs.tolist(), rows, strict=True)]
