"""Logits processors of ``emoji_think``: what training teaches is what decoding allows.

They keep no state. Each row [width] of the history is read by itself, from its end, so padding on the left, rows
that come and go, and a generation that starts anew change nothing. A penalty is a constant, and stays finite in fp16.
"""

from __future__ import annotations

import re
from typing import Any

import torch

from ratchet.inference.chat import stop_ids
from ratchet.profiles.emoji_think.marks import STOP

PENALTY = 100.0
"""Taken from a logit: e^-100 of its probability is left."""

_TAGS = ("<think>", "</think>")
_RUN = re.compile(rf"\n(?P<run>(?P<emoji>{'|'.join(STOP.pool)})(?P=emoji)*)\Z")


class NoThinkTags:
    """Thinking is said in emoji. A tag that is several tokens is let be: its pieces belong to other words as well."""

    def __init__(self, tokenizer: Any):
        encoded = [tokenizer.encode(tag, add_special_tokens=False) for tag in _TAGS]
        self._ids = [ids[0] for ids in encoded if len(ids) == 1]

    def __call__(self, _history: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        unlikely = torch.zeros(logits.shape[-1], dtype=torch.bool, device=logits.device)
        unlikely[self._ids] = True
        return torch.where(unlikely, _penalised(logits), logits)


class CountedStop:
    """A run of stop emoji is as long as the question asks: no end before that, and nothing but the end after it.

    Where the row asks for nothing, any count may be reached, and only the highest ends.
    """

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self._ends = list(stop_ids(tokenizer))
        texts = [f"\n{emoji * count}" for emoji in STOP.pool for count in range(1, max(STOP.words) + 2)]
        runs = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
        self._last_ids = torch.tensor(sorted({run[-1] for run in runs}))
        self._reach = max(map(len, runs)) + 1

    def __call__(self, history: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        may_be_run = torch.isin(history[:, -1], self._last_ids.to(history.device))
        unlikely = torch.zeros_like(logits, dtype=torch.bool)
        for row in may_be_run.nonzero()[:, 0].tolist():
            missing = self._missing(history[row])
            if missing is not None:
                unlikely[row] = missing <= 0
                unlikely[row, self._ends] = missing > 0
        return torch.where(unlikely, _penalised(logits), logits)

    def _missing(self, row: torch.Tensor) -> int | None:
        """How many emoji the run at the end of the row still lacks; None where there is no run."""
        found = _RUN.search(self._text(row[-self._reach :]))
        if found is None:
            return None
        asked = STOP.asked(self._text(row))
        count = asked.count if asked else max(STOP.words)
        return count - len(found["run"]) // len(found["emoji"])

    def _text(self, token_ids: torch.Tensor) -> str:
        ids = token_ids.tolist()
        return str(self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _penalised(logits: torch.Tensor) -> torch.Tensor:
    return (logits - PENALTY).clamp(min=torch.finfo(logits.dtype).min)
