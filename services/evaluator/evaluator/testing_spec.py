"""What the testing child is told, and what it answers: both travel as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from ratchet.evaluation.record import RecordKey
from ratchet.inference.generator import Decoding
from ratchet.settings.inference import InferenceSettings


class SuiteFile(BaseModel):
    """One suite: a JSONL file of examples. ``version`` and ``grader`` go into the record's key.

    ``score_gold``: whether the loss of the right answers is measured too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    version: str
    grader: str
    path: Path
    score_gold: bool = False


class TestingSpec(BaseModel):
    """One checkpoint folder and the suites to answer.

    ``weights`` is the digest that the folder must have. ``parent_degenerate`` says that the checkpoint before this
    one gave no answers either (as an untrained model does): then bad output alone does not make this one broken.
    ``earlier`` are the work folders of runs of this checkpoint that were killed.
    ``system_prompt`` is the configured base, ``date`` the text that its ``{date}`` stands for.
    """

    __test__ = False
    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoint: Path
    weights: str | None = None
    suites: tuple[SuiteFile, ...] = Field(min_length=1)
    work_folder: Path
    earlier: tuple[Path, ...] = ()
    decoding: Decoding = Decoding()
    inference: InferenceSettings = InferenceSettings()
    profile: str = "plain"
    profile_options: dict[str, Any] = Field(default_factory=dict)
    system_prompt: str = ""
    date: str = ""
    parent_degenerate: bool = True


class SuiteResult(BaseModel):
    """What became of one suite. ``items`` is the file of its ItemRecords, in the suite's order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n: int
    correct: int
    key: RecordKey
    items: Path
    tokens: int
    tokens_per_s: float
    """Speed of this run; what an earlier, killed run had answered does not count."""


class TestingResult(BaseModel):
    """The child's answer. ``broken`` is why the checkpoint may not go on; ``degenerate`` is told in any case."""

    __test__ = False
    model_config = ConfigDict(frozen=True, extra="forbid")

    broken: str | None = None
    degenerate: str | None = None
    weights: str | None = None
    suites: dict[str, SuiteResult] = Field(default_factory=dict)
