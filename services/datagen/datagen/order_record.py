"""What a generated batch must remember of itself, so that it can be made again."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict
from ratchet.errors import PreconditionFailed
from ratchet.settings import Settings
from ratchet.tasks import registry

from datagen.generate import Share


class OrderRecord(BaseModel):
    """Beside seed and mix: size, epoch cap, the uses that items were refused for, and what held items and families to
    what they were."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n: int
    epoch_cap: int
    hold_out_seed: int
    hold_out_share: float
    families: dict[str, str]
    spent: dict[str, int] = {}

    @classmethod
    def of(cls, mix: Sequence[Share], n: int, settings: Settings) -> OrderRecord:
        return cls(
            n=n,
            epoch_cap=settings.queue.epoch_cap,
            hold_out_seed=settings.suites.seed,
            hold_out_share=settings.suites.held_out_share,
            families={family: registry.get(family).version for family, _, _ in mix},
        )

    def require_same(self, settings: Settings) -> None:
        """Raise PreconditionFailed, naming it, where something has changed that the rows depend on."""
        suites = settings.suites
        if (suites.seed, suites.held_out_share) != (self.hold_out_seed, self.hold_out_share):
            raise PreconditionFailed(
                f"the batch was made with suites.seed {self.hold_out_seed} and suites.held_out_share "
                f"{self.hold_out_share}, which are now {suites.seed} and {suites.held_out_share}."
            )
        for family, version in self.families.items():
            if registry.get(family).version != version:
                raise PreconditionFailed(
                    f"the batch was made by {family} {version}, which is now {registry.get(family).version}."
                )
