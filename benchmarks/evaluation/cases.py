"""The items and models of the benchmark: see run.py."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ratchet.data.example import Example
from ratchet.evaluation.build_suites import build_pools
from ratchet.evaluation.suite import Pool, hold_out
from ratchet.settings.judging import SuiteSettings
from ratchet.tasks import registry
from ratchet.tasks.family import to_example
from ratchet.tasks.graders import item_key
from trainer.config import create_default_config
from trainer.core import TrainerEngine
from trainer.monitoring import TrainingStatusWriter

from tests.support.examples import write_examples

FAMILIES = [(family.name, family.levels) for family in SuiteSettings().families]


@dataclass(frozen=True)
class Case:
    rows: int
    """Rows that the model is trained on."""
    mixed: bool
    title: str

    def of_rows(self, rows: int | None) -> Case:
        """The same case with another number of rows, if given."""
        return self if rows is None else replace(self, rows=rows)

    def training(self) -> list[Example]:
        if not self.mixed:
            return [generated("chain_sum", 1 + n % 3, n) for n in range(self.rows)]
        cells = [(name, level) for level in range(6) for name, levels in FAMILIES if level < len(levels)]
        return [generated(name, 1 + level, n) for n in range(self.rows) for name, level in [cells[n % len(cells)]]]

    def items(self, count: int) -> list[Example]:
        return shipped_items() if self.mixed else sums(count)


CASES = {
    "sums": Case(40_000, False, "Sums of levels 1 to 3"),
    "shipped": Case(60_000, True, "The shipped suites: three families, six levels"),
    "shipped, early": Case(10_000, True, "The shipped suites, a model that has seen a sixth of the rows"),
}


def generated(family: str, level: int, seed: int) -> Example:
    return to_example(registry.get(family).generate(level, seed), "benchmark")


def trained_model(case: Case, folder: Path) -> Path:
    """The tiny model after the rows of the case, with the default hyperparameters; an existing one is reused."""
    found = folder / "run" / "final_model"
    if not found.exists():
        folder.mkdir(parents=True, exist_ok=True)
        rows = write_examples(folder / "rows.jsonl", case.training())
        config = create_default_config(rows, folder / "run", overrides={"monitoring.preview_backend": "none"})
        result = TrainerEngine(TrainingStatusWriter(folder / "status.json")).run_job(config)
        assert result.success, result.error_message
    return found


def sums(count: int) -> list[Example]:
    """Sums of levels 1 to 3, each once: a tenth of level 1, which has few, and the rest by halves."""
    items: dict[str, Example] = {}
    seed = 1_000_000
    while len(items) < count:
        level = 1 if seed % 10 == 0 else 2 + seed % 2
        item = generated("chain_sum", level, seed)
        items.setdefault(item_key(item), item)
        seed += 1
    return list(items.values())


def shipped_items() -> list[Example]:
    """Probe, eval and confirm, as a new workspace with the default settings draws them."""
    settings = SuiteSettings()
    families = {name: registry.get(name) for name, _ in FAMILIES}
    cells = [(name, level) for name, levels in FAMILIES for level in levels]
    sizes: dict[Pool, int] = {
        "probe": settings.probe_items,
        "eval": settings.eval_items,
        "confirm": settings.confirm_items,
    }
    held = hold_out(families, cells, settings.seed, settings.held_out_share)
    pools = build_pools(families, cells, sizes, held)
    return [item for pool in pools.values() for item in pool.items]
