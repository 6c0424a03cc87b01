"""All levels alike, whatever the model can do: what any cleverer arm has to beat."""

from __future__ import annotations

from datagen.arms.arm import Standing
from datagen.mix import Draft, Drafted


class Mixed:
    """The uniform mix over all levels taught."""

    name = "mixed"
    purpose = "Every level taught gets the same."

    def draft(self, standing: Standing) -> Draft:
        return {cell: Drafted(1.0, "even", "as every level") for cell in standing.levels}
