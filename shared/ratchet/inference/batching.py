"""Fixed batch boundaries: which prompts are answered together depends on the prompts alone."""

from __future__ import annotations

from collections.abc import Sequence

Plan = tuple[tuple[int, ...], ...]
"""Batches of indices into the prompts."""


def plan_batches(
    prompts: Sequence[Sequence[int]], new_tokens: Sequence[int], *, max_rows: int, max_tokens: int
) -> Plan:
    """Sort prompts by length, then by tokens, and cut them into batches.

    ``new_tokens[i]`` is the most that prompt ``i`` may add. A batch has at most ``max_rows`` rows, and rows
    times padded width (longest prompt and longest answer) stays within ``max_tokens``; one row always fits.
    The same prompts in another order give the same batches.
    """
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), tuple(prompts[i])))
    plan: list[tuple[int, ...]] = []
    batch: list[int] = []
    longest_answer = 0
    for index in order:
        answer = max(longest_answer, new_tokens[index])
        width = len(prompts[index]) + answer
        if batch and (len(batch) == max_rows or (len(batch) + 1) * width > max_tokens):
            plan.append(tuple(batch))
            batch, answer = [], new_tokens[index]
        batch.append(index)
        longest_answer = answer
    if batch:
        plan.append(tuple(batch))
    return tuple(plan)


def occurrences(prompts: Sequence[Sequence[int]]) -> list[int]:
    """For each prompt, how often the same one stood before it: repeated prompts draw different samples."""
    seen: dict[tuple[int, ...], int] = {}
    counts = []
    for prompt in prompts:
        key = tuple(prompt)
        counts.append(seen.get(key, 0))
        seen[key] = counts[-1] + 1
    return counts
