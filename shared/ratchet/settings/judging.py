"""Sections of judging: the suites, mining, regression, comparison, calibration, and the deployment gate."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, model_validator

from ratchet.settings.section import Section


class FamilySettings(Section):
    """One task family and its levels for training and testing."""

    name: str = Field(description="A registered family, such as chain_sum or rg:spell_backward.")
    levels: tuple[int, ...] = Field(min_length=1, description="Levels, the easiest first.")
    protected: bool = Field(True, description="Whether the gate refuses a model that is not at least as good here.")


class SuiteSettings(Section):
    """Families and the sizes of the held-out pools, in items over all levels."""

    families: tuple[FamilySettings, ...] = Field(
        tuple(FamilySettings(name=name, levels=(1, 2, 3, 4, 5, 6)) for name in ("chain_sum", "reverse", "sort_digits")),
        description="Built-in tasks that are generated, trained on and tested. Without this setting they are for the "
        "built-in model alone: a model of your own learns from your data. Later additions and removals change the "
        "suites at the next start; sizes apply to new levels only.",
    )
    general_prompts: Path | Literal["builtin", "none"] = Field(
        "builtin",
        description="Prompts whose answers by the base model protect what a pretrained model can do already: Ratchet's "
        "own, a file of yours (JSONL with `prompt`), or none. Read at the first run only.",
    )
    probe_items: int = Field(
        300,
        ge=1,
        description="Mining, correction and curriculum learn from these; `ratchet init` writes 1000 on a GPU.",
    )
    eval_items: int = Field(
        300, ge=1, description="Regression, comparison and calibration read these; `ratchet init` writes 1000 on a GPU."
    )
    confirm_items: int = Field(900, ge=1, description="Only the deployment gate reads these.")
    held_out_share: float = Field(
        0.2, gt=0, le=0.5, description="Largest share of a finite level that the pools take; locked."
    )
    max_new_tokens: int = Field(
        64, ge=1, description="Longest answer in tokens; a longer one is truncated before grading."
    )
    seed: int = Field(20_261, ge=0, description="Seed of the pools; locked.")


class MiningSettings(Section):
    """Budget of the search for weak items."""

    search_items: int = Field(
        240, ge=0, description="Fresh problems that the search asks a checkpoint; 0 mines the probe record alone."
    )


class RegressionSettings(Section):
    """Differences are fractions of 1."""

    alpha: float = Field(
        0.05, gt=0, lt=0.5, description="Chance that a checkpoint as good as its baselines is reported as worse."
    )
    critical_drop: float = Field(
        0.05, gt=0, lt=1, description="A drop significantly larger than this is critical: training rewinds."
    )


class ComparisonSettings(Section):
    """Budgets of the ranking: a checkpoint that exceeds one is ranked, and never deployed. Unset means no budget."""

    max_size_bytes: int | None = Field(None, ge=1, description="Most bytes of a checkpoint's files.")
    min_tokens_per_s: float | None = Field(
        None, gt=0, description="Fewest tokens per second that testing must measure on the eval suite."
    )


class CalibrationSettings(Section):
    """Confidence of whole answers."""

    precision: float = Field(
        0.9,
        gt=0,
        lt=1,
        description="Share of right answers that the abstention threshold of a deployment has to reach.",
    )


class JudgeSettings(Section):
    """The LLM judge of tasks with metric judge, behind the OpenAI chat API; inference.timeout_s and
    inference.concurrency apply to it, too.
    """

    url: str | None = Field(None, description="Base URL of the judge's server, such as http://127.0.0.1:8000.")
    model: str | None = Field(None, description="Name of the judge at its server.")
    api_key: SecretStr | None = Field(None, description="Bearer token of the judge's server.")
    daily_tokens: int | None = Field(
        2_000_000,
        ge=0,
        description="Most tokens of prompts and replies in 24 hours; beyond them, testing waits. Unset: no limit.",
    )
    template: str = Field(
        "Two answers to the same request follow. Which one is better: more correct, more helpful, and in the form that "
        "was asked for? Neither length nor order matters. Reply with one word: A, B, or TIE.\n\n[Request]\n{question}"
        "\n\n[Answer A]\n{first}\n\n[Answer B]\n{second}",
        description="What the judge is asked, twice with the answers in either order: {question}, {first}, {second}.",
    )

    @model_validator(mode="after")
    def _template_is_whole(self) -> JudgeSettings:
        missing = [name for name in ("{question}", "{first}", "{second}") if name not in self.template]
        if missing:
            raise ValueError(f"template lacks {', '.join(missing)}.")
        return self


class GateSettings(Section):
    """Error rates, margins, and the assumptions by which `ratchet config check` judges the size of the suites.

    Shares and differences are fractions of 1: a margin of 0.04 is four points.
    """

    alpha: float = Field(
        0.05, gt=0, lt=0.5, description="Chance that any model no better than one champion ever replaces it."
    )
    screen_alpha: float = Field(
        0.1, gt=0, le=0.5, description="One-sided level of the free screen on the eval suite, before confirm is opened."
    )
    margin: float = Field(
        0.04,
        gt=0,
        lt=0.5,
        description="Largest drop that a protected family's non-inferiority test tolerates, and of a judged task the "
        "largest drop of its preferences. A user's task with few items has a larger one, which the reasons name.",
    )
    loss_margin: float = Field(
        0.05,
        gt=0,
        lt=0.5,
        description="Largest rise of a protected task's loss, in nats per token; 0.05 is 5 % more perplexity.",
    )
    general_margin: float = Field(
        0.25,
        gt=0,
        lt=0.5,
        description="Largest drift from the base model, in nats per token of its own answers to general prompts.",
    )
    mastery: float = Field(0.9, gt=0, le=1, description="Success rate from which a level counts as mastered.")
    gain: float = Field(0.05, gt=0, lt=1, description="Planning: the true gain that the gate must be able to detect.")
    discordant_share: float = Field(
        0.15, gt=0, le=1, description="Planning: share of all items whose grade differs between two checkpoints."
    )
    power: float = Field(
        0.8, gt=0.5, lt=1, description="Planning: the probability with which the gain must be detected."
    )

    @model_validator(mode="after")
    def _gain_fits_discordance(self) -> GateSettings:
        if self.gain > self.discordant_share:
            raise ValueError(
                f"gain {self.gain} exceeds discordant_share {self.discordant_share}, which counts every gained item: "
                "lower gain or raise discordant_share."
            )
        return self
