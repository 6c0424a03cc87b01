"""Logits processors of ``emoji_think``, which restrict decoding to the format used in training.

They keep no state. Each row [width] of the history is read separately, from its end, so left padding, joining and
leaving rows, and a restarted generation make no difference. The penalty is a constant that stays finite in fp16.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch

from ratchet.data.example import Message
from ratchet.inference.chat_template import chat_template, stop_ids
from ratchet.profiles.emoji_think.profile import STOP, THINK, Marks

PENALTY = 100.0
"""Subtracted from a logit, which leaves e^-100 of its probability."""

_TAGS = ("<think>", "</think>")


class NoThinkTags:
    """Suppresses ``<think>`` tags, which the emoji replace. A tag of several tokens is allowed, since its tokens occur
    in other words too."""

    def __init__(self, tokenizer: Any):
        encoded = [tokenizer.encode(tag, add_special_tokens=False) for tag in _TAGS]
        self._ids = [ids[0] for ids in encoded if len(ids) == 1]

    def __call__(self, _history: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        unlikely = torch.zeros(logits.shape[-1], dtype=torch.bool, device=logits.device)
        unlikely[self._ids] = True
        return torch.where(unlikely, _penalised(logits), logits)


class CountedRuns:
    """Makes a run of marks as long as the question requests, by penalising tokens that end it early or continue it.

    A newline follows the thinking mark, the end of the turn follows the stop mark. If the question requests nothing,
    any count is allowed up to the maximum, which ends the run.
    """

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        ends = frozenset(stop_ids(tokenizer))
        line_ends = frozenset(self._encode(f"{emoji}\n")[-1] for emoji in THINK.pool)
        opening = _opening(tokenizer)
        self._rules = (
            _Rule(THINK, _run_after(re.escape(opening), THINK), line_ends, line_ends | ends),
            _Rule(STOP, _run_after("\n", STOP), ends, ends),
        )
        runs = [self._encode(text) for rule in self._rules for text in rule.marks.runs(opening)]
        self._last_ids = torch.tensor(sorted({run[-1] for run in runs}))
        self._reach = max(map(len, runs)) + 1

    def __call__(self, history: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        may_be_run = torch.isin(history[:, -1], self._last_ids.to(history.device))
        unlikely = torch.zeros_like(logits, dtype=torch.bool)
        for row in may_be_run.nonzero()[:, 0].tolist():
            self._judge(history[row], unlikely[row])
        return torch.where(unlikely, _penalised(logits), logits)

    def _judge(self, row: torch.Tensor, unlikely: torch.Tensor) -> None:
        """Mark the tokens that must not follow the run at the end of the row, if there is a run."""
        tail = self._decode(row[-self._reach :])
        for rule in self._rules:
            found = rule.run.search(tail)
            if found is None:
                continue
            said = len(found["run"]) // len(found["emoji"])
            asked = rule.marks.asked(self._decode(row))
            if said >= (asked.count if asked else max(rule.marks.words)):
                unlikely[:] = True
                unlikely[list(rule.follow)] = False
            elif asked:
                unlikely[list(rule.too_early)] = True

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def _decode(self, token_ids: torch.Tensor) -> str:
        ids = token_ids.tolist()
        return str(self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


@dataclass(frozen=True)
class _Rule:
    """The position of a run of marks, the tokens that may follow a complete run, and those that would end it early."""

    marks: Marks
    run: re.Pattern[str]
    follow: frozenset[int]
    too_early: frozenset[int]


def _run_after(before: str, marks: Marks) -> re.Pattern[str]:
    return re.compile(rf"{before}(?P<run>(?P<emoji>{'|'.join(marks.pool)})(?P=emoji)*)\Z")


def _opening(tokenizer: Any) -> str:
    """The text of the template between the end of a question and the answer."""
    template = chat_template(tokenizer)
    return template.prompt_text([Message(role="user", content="?")]).rpartition(template.end_of_turn)[2]


def _penalised(logits: torch.Tensor) -> torch.Tensor:
    return (logits - PENALTY).clamp(min=torch.finfo(logits.dtype).min)
