"""Our calibration error and AUROC beside those of torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ratchet.stats.calibration import ece, mce, reliability
from ratchet.stats.selective import auroc
from torchmetrics.functional.classification import binary_auroc, binary_calibration_error


@pytest.mark.parametrize("seed", range(6))
def test_they_agree(seed: int) -> None:
    rng = np.random.default_rng(seed)
    confidence = rng.beta(3, 1 + seed / 2, 400)
    outcome = (rng.random(400) < confidence**1.5).astype(float)
    diagram = reliability(confidence, outcome, bins=10 + seed)
    stated, truth = torch.tensor(confidence), torch.tensor(outcome, dtype=torch.int64)
    for norm, ours in (("l1", ece(diagram)), ("max", mce(diagram))):
        theirs = binary_calibration_error(stated, truth, n_bins=10 + seed, norm=norm)
        assert ours == pytest.approx(float(theirs), abs=1e-6)
    assert auroc(confidence, outcome) == pytest.approx(float(binary_auroc(stated, truth)), abs=1e-6)
