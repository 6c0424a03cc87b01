"""How the error of one champion is spent over the challenges it meets."""

from __future__ import annotations

from math import pi


def alpha_spent(alpha: float, k: int) -> float:
    """Level of the k-th challenge, k from 1: alpha * 6 / (pi^2 k^2). Over all k they add up to alpha."""
    if k < 1:
        raise ValueError(f"challenges are counted from 1, not {k}.")
    return alpha * 6 / (pi * k) ** 2
