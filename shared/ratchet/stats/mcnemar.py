"""McNemar's exact test: of the items on which two models differ, does one win more than half?

Conditional on the number of discordant items it is a sign test, so it is valid for every n.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betainc


def mcnemar_better(gains: ArrayLike, losses: ArrayLike) -> NDArray[np.float64]:
    """One-sided p: chance of so many gains or more if gains and losses were equally likely. Element-wise.

    The binomial tail at one half, written as a regularised incomplete beta function.
    """
    won, lost = np.asarray(gains, float), np.asarray(losses, float)
    tail = betainc(np.maximum(won, 1), lost + 1, 0.5)
    return np.asarray(np.where(won == 0, 1.0, tail), dtype=np.float64)
