"""Reading a page of metrics as Prometheus reads it."""

from __future__ import annotations

import urllib.request

from prometheus_client.parser import text_string_to_metric_families

PATIENCE_S = 30.0


class Scrape:
    """All samples of one page, to be asked by name and some of the labels."""

    def __init__(self, text: str):
        self.samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    @classmethod
    def of(cls, url: str) -> Scrape:
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
            return cls(answer.read().decode())

    def __getitem__(self, name: str) -> float:
        return self.value(name)

    def value(self, name: str, **labels: str) -> float:
        """The sum over the samples of that name with these labels. Raises KeyError if there is none."""
        found = [s.value for s in self.samples if s.name == name and labels.items() <= s.labels.items()]
        if not found:
            raise KeyError(f"{name} {labels}; there is {sorted({s.name for s in self.samples})}")
        return float(sum(found))

    def names(self) -> set[str]:
        return {sample.name for sample in self.samples}
