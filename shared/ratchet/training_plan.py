"""Hyperparameters from a model, its rows and the memory of a machine.

``choose_training`` decides what is trained, how fast, and in which portions. `ratchet init` writes its result to the
settings file; `trainer` uses it as the defaults of a pretrained model. It needs no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from statistics import fmean
from typing import Any

from ratchet.data.example import Example
from ratchet.errors import ChatTemplateError
from ratchet.inference.jinja_template import JinjaTemplate
from ratchet.inference.model_folder import read_json
from ratchet.leases.gpus import list_gpus
from ratchet.settings.training import HyperparamSettings, ModelSettings, MonitoringSettings
from ratchet.training_memory import (
    ANSWER_SHARE,
    MemoryEstimate,
    ModelFacts,
    ProcessLayout,
    computes_in_16_bits,
    estimate_memory,
    training_memory,
)

SMALL_PARAMETERS = 5_000_000
"""Up to here a model counts as one that is trained from scratch, which the defaults of the settings suit."""
DEFAULT_RANK = 16
ADAPTER_RATE, MOST_ADAPTER_RATE, LARGE_ADAPTER_RATE = 2e-4, 5e-4, 1e-4
"""Learning rates of adapters: 2e-4 from 1 to 30 billion parameters and 1e-4 above (Dettmers et al. 2023, QLoRA, table
9); below a billion it rises to 5e-4 at 0.1 billion, with which SmolLM2-135M learns bAbI from 46 rows."""
FULL_SHARE = 0.1
"""The learning rate for all weights, as a share of that for adapters (Schulman 2025, LoRA Without Regret)."""

FEW_ROWS = 1_000
STEP_ROWS, FEW_STEP_ROWS = 16, 8
"""Rows of an optimizer step; of fewer than 1,000 rows, so that an epoch has steps enough."""
LEAST_STEPS, MOST_EPOCHS = 40, 4
"""A file is trained on several times until it has so many steps, but no more often."""

LOGGING_STEPS, PREVIEW_STEPS = 2, 12
"""Steps between points of the loss and between previews: a step takes seconds, and a batch of few rows has 24."""

ROUNDING = 32
"""Maximum lengths are multiples of it: room for rows that come later and are a little longer."""
DEFAULT_LENGTH = 1024
"""Maximum length of a row where the rows are not known."""
TURN_TOKENS, SYSTEM_TOKENS = 8, 40
"""Tokens that chat templates add to each turn, and in their own system turn, where the template is not known."""
CHARACTERS_PER_TOKEN = 3.0
"""Without a tokenizer.json; English has about 4, code and other languages have fewer."""

CPU_TOKENS, GPU_TOKENS = 512, 16_384
"""Tokens of a micro-batch beyond which the device gets no faster."""
CPU_MEMORY_SHARE, GPU_MEMORY_SHARE = 0.6, 0.85
"""Share of the free memory that training may plan with; on a CPU evaluation and the server need the rest."""


@dataclass(frozen=True)
class RowFacts:
    """Lengths in tokens of the rows to train on; ``answer_share`` of their tokens are predicted."""

    lengths: tuple[int, ...]
    answer_share: float = ANSWER_SHARE

    @property
    def longest(self) -> int:
        return max(self.lengths)

    @property
    def mean(self) -> float:
        return fmean(self.lengths)

    def longer_than(self, length: int) -> int:
        return sum(each > length for each in self.lengths)


def row_facts(examples: Iterable[Example], model: Path | None = None) -> RowFacts | None:
    """Facts of rows, as the tokenizer.json and the chat template in the model's folder render them; None without rows.

    Without those files, or for a row that the template refuses, lengths are estimated.
    """
    count, rendered = _counter(model), _renderer(model)
    lengths, answers = [], 0
    for example in examples:
        turns = [(message.role, count(message.content)) for message in example.messages]
        text = rendered(example)
        estimated = SYSTEM_TOKENS + sum(tokens + TURN_TOKENS for _, tokens in turns)
        lengths.append(estimated if text is None else count(text))
        answers += sum(tokens + 1 for role, tokens in turns if role == "assistant")
    return RowFacts(tuple(lengths), min(1.0, answers / sum(lengths))) if lengths else None


def _counter(model: Path | None) -> Callable[[str], int]:
    file = model / "tokenizer.json" if model is not None else None
    if file is None or not file.is_file():
        return lambda text: math.ceil(len(text) / CHARACTERS_PER_TOKEN)
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def _renderer(model: Path | None) -> Callable[[Example], str | None]:
    """Renders an example through the model's chat template; None where it has none, or where it refuses the row."""
    config, text = _tokenizer_config(model)
    if text is None:
        return lambda _example: None
    special = {name: value for name, value in config.items() if name.endswith("_token") and isinstance(value, str)}
    try:
        template = JinjaTemplate(text, special, date.today(), str(model))
    except ChatTemplateError:
        return lambda _example: None

    def render(example: Example) -> str | None:
        turns = [{"role": message.role, "content": message.content} for message in example.messages]
        try:
            return template.render(turns, None, speak=False)
        except ChatTemplateError:
            return None

    return render


def _tokenizer_config(model: Path | None) -> tuple[Mapping[str, Any], str | None]:
    """The tokenizer's configuration, and the text of the chat template."""
    if model is None or not (model / "tokenizer_config.json").is_file():
        return {}, None
    config = read_json(model / "tokenizer_config.json")
    own = model / "chat_template.jinja"
    text = own.read_text(encoding="utf-8") if own.is_file() else config.get("chat_template")
    return config, text if isinstance(text, str) else None


@dataclass(frozen=True)
class Machine:
    """Where training runs: memory for each process, whether that is a GPU's, and whether its CPU computes in bf16."""

    memory_bytes: int
    on_gpu: bool = False
    bf16: bool = False
    layout: ProcessLayout = field(default_factory=ProcessLayout)

    @property
    def usable_bytes(self) -> int:
        return int(self.memory_bytes * (GPU_MEMORY_SHARE if self.on_gpu else CPU_MEMORY_SHARE))


def this_machine(processes: int = 1, *, device: str = "auto", sharded: bool = False) -> Machine:
    """This machine, for so many training processes on a ``device`` as in the settings."""
    available, _ = training_memory(processes, on_cpu=device == "cpu")
    return Machine(
        available,
        on_gpu=device != "cpu" and bool(list_gpus()),
        bf16=cpu_computes_bf16(),
        layout=ProcessLayout(processes, sharded and processes > 1),
    )


def cpu_computes_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this CPU multiplies in bf16, which is then faster than fp32 (1.4 times at 135 million parameters, 1.2
    times at 5 million). On others it is emulated and slower."""
    try:
        words = set(cpuinfo.read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return False
    return not words.isdisjoint({"avx512_bf16", "amx_bf16", "bf16"})


@dataclass(frozen=True)
class TrainingChoice:
    """The chosen settings, and what they cost. ``fits``: the estimate is within the memory that may be planned with."""

    model: ModelSettings
    hyperparams: HyperparamSettings
    memory: MemoryEstimate
    fits: bool
    monitoring: MonitoringSettings = field(default_factory=MonitoringSettings)
    rows_too_long: int = 0
    """Rows that are longer than ``max_length``, and so left out."""

    def sections(self) -> dict[str, dict[str, Any]]:
        """What differs from the defaults, by section and field, as a settings file has it. The path is not among it."""
        return {
            "model": self.model.model_dump(exclude_defaults=True, exclude={"path"}),
            "hyperparams": self.hyperparams.model_dump(exclude_defaults=True),
            "monitoring": self.monitoring.model_dump(exclude_defaults=True),
        }


def choose_training(
    facts: ModelFacts, rows: RowFacts | None, machine: Machine, *, adapters: bool | None = None
) -> TrainingChoice:
    """Choose the hyperparameters. ``adapters``: True for LoRA, False for all weights, None for what suits the model.

    A model of up to 5 million parameters keeps the defaults of the settings, which train all its weights from scratch.
    Where a row of the maximum length does not fit, activations are recomputed, and then the maximum length is lowered.
    """
    planner = _Planner(facts, rows, machine)
    if facts.parameters <= SMALL_PARAMETERS and not adapters:
        return planner.choice(ModelSettings(), _from_scratch(facts, rows))
    model = ModelSettings(lora_rank=0 if adapters is False else DEFAULT_RANK)
    step_rows = STEP_ROWS if rows is None or len(rows.lengths) >= FEW_ROWS else FEW_STEP_ROWS
    hyperparams = HyperparamSettings(
        batch_size=1,
        gradient_accumulation=step_rows,
        learning_rate=learning_rate(facts.parameters, adapters=bool(model.lora_rank)),
        num_epochs=1 if rows is None else _epochs(len(rows.lengths), step_rows),
        max_length=_max_length(facts, rows),
        fp_precision="bf16" if machine.bf16 and not machine.on_gpu else "auto",
    )
    if not planner.fits(model, hyperparams):
        model = model.model_copy(update={"gradient_checkpointing": True})
        hyperparams = planner.shortened(model, hyperparams)
    return planner.choice(model, planner.in_micro_batches(model, hyperparams))


def _from_scratch(facts: ModelFacts, rows: RowFacts | None) -> HyperparamSettings:
    defaults = HyperparamSettings()
    length = max(defaults.max_length, 0 if rows is None else _max_length(facts, rows))
    return defaults.model_copy(update={"max_length": min(length, facts.context or length)})


def learning_rate(parameters: int, *, adapters: bool) -> float:
    """Peak learning rate by size, to two digits."""
    rate = ADAPTER_RATE if parameters <= 30e9 else LARGE_ADAPTER_RATE
    if parameters < 1e9:
        rate = min(MOST_ADAPTER_RATE, ADAPTER_RATE * (1e9 / parameters) ** 0.46)
    return float(f"{rate if adapters else rate * FULL_SHARE:.2g}")


def _epochs(rows: int, step_rows: int) -> int:
    return max(1, min(MOST_EPOCHS, math.ceil(LEAST_STEPS * step_rows / rows)))


def _max_length(facts: ModelFacts, rows: RowFacts | None) -> int:
    wanted = DEFAULT_LENGTH if rows is None else math.ceil(rows.longest / ROUNDING) * ROUNDING
    return min(wanted, facts.context or wanted)


@dataclass(frozen=True)
class _Planner:
    """The memory of settings for a model and its rows on a machine."""

    facts: ModelFacts
    rows: RowFacts | None
    machine: Machine

    def memory(self, model: ModelSettings, hyperparams: HyperparamSettings) -> MemoryEstimate:
        half = computes_in_16_bits(hyperparams.fp_precision, on_gpu=self.machine.on_gpu)
        share = ANSWER_SHARE if self.rows is None else self.rows.answer_share
        layout = self.machine.layout
        return estimate_memory(self.facts, model, hyperparams, half=half, layout=layout, answer_share=share)

    def fits(self, model: ModelSettings, hyperparams: HyperparamSettings) -> bool:
        return self.memory(model, hyperparams).total <= self.machine.usable_bytes

    def shortened(self, model: ModelSettings, hyperparams: HyperparamSettings) -> HyperparamSettings:
        """The longest maximum length of which a row fits; unchanged if none does."""
        for length in range(hyperparams.max_length, 2 * ROUNDING - 1, -ROUNDING):
            shorter = hyperparams.model_copy(update={"max_length": length})
            if self.fits(model, shorter):
                return shorter
        return hyperparams

    def in_micro_batches(self, model: ModelSettings, hyperparams: HyperparamSettings) -> HyperparamSettings:
        """The same steps in as few micro-batches as memory allows and the device gains from."""
        step_rows = hyperparams.gradient_accumulation
        mean = hyperparams.max_length if self.rows is None else self.rows.mean
        limit = GPU_TOKENS if self.machine.on_gpu else CPU_TOKENS
        best = hyperparams
        for size in (size for size in range(2, step_rows + 1) if step_rows % size == 0):
            if best.batch_size * mean >= limit:
                break
            split = {"batch_size": size, "gradient_accumulation": step_rows // size}
            larger = hyperparams.model_copy(update=split)
            if not self.fits(model, larger):
                break
            best = larger
        return best

    def choice(self, model: ModelSettings, hyperparams: HyperparamSettings) -> TrainingChoice:
        memory = self.memory(model, hyperparams)
        too_long = 0 if self.rows is None else self.rows.longer_than(hyperparams.max_length)
        monitoring = MonitoringSettings()
        if self.facts.parameters > SMALL_PARAMETERS:
            monitoring = MonitoringSettings(logging_steps=LOGGING_STEPS, preview_interval=PREVIEW_STEPS)
        fits = memory.total <= self.machine.usable_bytes
        return TrainingChoice(model, hyperparams, memory, fits, monitoring, too_long)


UNKNOWN_MODEL = ModelFacts(
    parameters=1_000_000_000,
    hidden=2048,
    intermediate=8192,
    layers=16,
    vocabulary=128_256,
)
"""Assumed for a model of the hub whose files are not here yet."""
