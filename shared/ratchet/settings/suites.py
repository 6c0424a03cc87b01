"""What checkpoints are tested on."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from ratchet.settings.section import Section


class FamilySettings(Section):
    """One task family and the levels of it that are taught and tested."""

    name: str = Field(description="A registered family, as chain_sum or rg:spell_backward.")
    levels: tuple[int, ...] = Field(min_length=1, description="Levels, the easiest first.")
    protected: bool = Field(True, description="Whether the gate refuses a model that is not at least as good here.")


class SuiteSettings(Section):
    """Families and the sizes of the held-out pools, in items over all levels."""

    families: tuple[FamilySettings, ...] = Field(
        tuple(FamilySettings(name=name, levels=(1, 2, 3, 4, 5, 6)) for name in ("chain_sum", "reverse", "sort_digits")),
        description="What is generated, trained on and tested. Later additions and removals change the suites at the "
        "next start; sizes apply to new levels only.",
    )
    files: tuple[Path, ...] = Field(
        (),
        description="Your own JSONL files; the held-out share of their rows is tested on, too. They are read at the first "
        "run only: the held-out rows are kept, and later changes of a file change no suite.",
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
    held_out_share: float = Field(0.2, gt=0, le=0.5, description="Most that the pools take of a finite level; locked.")
    max_new_tokens: int = Field(64, ge=1, description="Longest answer in tokens; a longer one is cut and graded so.")
    seed: int = Field(20_261, ge=0, description="Seed of the pools; locked.")

    @model_validator(mode="after")
    def _something_is_tested(self) -> SuiteSettings:
        if not self.families and not self.files:
            raise ValueError("name families or files: without either there is nothing to test a model on.")
        return self
