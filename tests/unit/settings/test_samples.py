"""Every sample configuration is valid."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from ratchet.settings import load

SAMPLES = Path(__file__).parents[3] / "samples"


@pytest.mark.parametrize("sample", sorted(SAMPLES.iterdir()), ids=lambda sample: sample.name)
def test_a_sample_is_read_without_a_warning_and_changes_something(sample: Path, folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load(sample) != load()
