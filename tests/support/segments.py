"""Specs of segments to train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainer.config import parse_config
from trainer.segment import SegmentSpec


def segment_spec(
    dataset_path: Path,
    output_dir: Path,
    *,
    resume_from: str | Path | None = None,
    offset: int = 0,
    status_path: Path | None = None,
    ranks: int = 1,
    **sections: dict[str, Any],
) -> SegmentSpec:
    """A segment of the file, on a CPU; ``sections`` are those of a training configuration."""
    config = parse_config(
        {
            "environment": {"device": "cpu"},
            **sections,
            "data": {"dataset_path": dataset_path, "offset": offset},
            "output": {"output_dir": output_dir, "resume_from": resume_from},
        }
    )
    return SegmentSpec(config=config, status_path=status_path, ranks=ranks)
