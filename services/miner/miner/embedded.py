"""Coverage in a space of embeddings: which of the reference texts have a row of the batch near them.

``covered`` is the coverage of Naeem et al., Reliable Fidelity and Diversity Metrics for Generative Models (ICML 2020,
arXiv:2002.09797), section 3.2: the share of reference points whose ball, as wide as the distance to their k-th nearest
other reference point, holds a row. ``spread`` is the mean distance of a row to the nearest other row, divided by that
of the reference: below 1 the rows lie closer together. Distances are Euclidean between vectors of length 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from ratchet.errors import EmptyEvaluation

NEIGHBOURS = 5


class Embedded(BaseModel):
    """Over ``rows`` of a batch and ``reference`` texts; ``model`` names whose space it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    rows: int
    reference: int
    covered: float
    spread: float


def embedded_coverage(reference: Sequence[Sequence[float]], rows: Sequence[Sequence[float]], model: str) -> Embedded:
    """Raises EmptyEvaluation where there are too few vectors for a k-th neighbour, or a single row."""
    if len(reference) <= NEIGHBOURS or len(rows) < 2:
        raise EmptyEvaluation(f"{len(reference)} reference texts and {len(rows)} rows are too few to measure coverage.")
    real, made = _unit(reference), _unit(rows)
    among, own = np.sort(_distances(real, real), axis=1), np.sort(_distances(made, made), axis=1)
    radii = among[:, NEIGHBOURS]  # place 0 is the point itself
    covered = float((_distances(real, made).min(axis=1) <= radii).mean())
    apart = float(among[:, 1].mean())
    spread = float(own[:, 1].mean()) / apart if apart else 0.0
    return Embedded(model=model, rows=len(rows), reference=len(reference), covered=covered, spread=spread)


def _unit(vectors: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    points = np.asarray(vectors, dtype=np.float64)
    unit: NDArray[np.float64] = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)
    return unit


def _distances(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """[len(one), len(other)], of points of length 1."""
    found: NDArray[np.float64] = np.sqrt(np.maximum(2.0 - 2.0 * (one @ other.T), 0.0))
    return found
