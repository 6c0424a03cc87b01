"""The noise floor that was measured on a record's suite, under the record's conditions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from sqlalchemy.orm import Session

from ratchet.evaluation.noise_floor import NoiseFloor
from ratchet.ledger.tables import SuiteRow


def noise_of(session: Session, suite_id: str, key: Mapping[str, Any]) -> NoiseFloor | None:
    """The suite's noise floor for engine, dtype and GPU class of a record's key; None if none was measured."""
    suite = session.get(SuiteRow, suite_id)
    for kept in (suite.noise or {}).values() if suite is not None else ():
        try:
            noise = NoiseFloor.model_validate(kept)
        except ValidationError:  # of another version
            continue
        if noise.conditions == (key.get("engine"), key.get("dtype"), key.get("gpu_class")):
            return noise
    return None
