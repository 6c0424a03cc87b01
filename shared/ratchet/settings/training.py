"""Sections of training, and the configuration of one run.

Model, hyperparameters, profile, monitoring, locked properties, data, output, environment.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SecretStr, model_validator

from ratchet.settings.section import Section


class LockedSettings(Section):
    """What may never change once a line of checkpoints has begun. Unset means: as the base model has it.

    The first run checks these against the model on disk and writes them to the ledger; every later run is held to them.
    """

    base_model: str | None = Field(
        None, min_length=1, description="The base model's own name, where model.path is only where it lies."
    )
    model_architecture: str | None = Field(
        None, min_length=1, description="Architecture that the model's config.json must name, as Qwen3ForCausalLM."
    )
    max_context_length: int | None = Field(
        None, ge=8, description="Context in tokens that the line keeps to; at most the model's, at least max_length."
    )
    vocab_size: int | None = Field(None, ge=1, description="Rows of the embedding that config.json must name.")


SEGMENT_LIMIT_S = 900.0
"""Longest segment, and so the most training that a kill repeats."""


class ModelSettings(Section):
    """The base model, and what of it is trained."""

    path: str = Field(
        "tiny",
        min_length=1,
        description="Folder or hub name of the base model; `tiny` is the built-in model, made on first use.",
    )
    tokenizer_path: str | None = Field(
        None, description="Folder or hub name of the tokenizer, where it is not the model's own."
    )
    chat_template: Path | None = Field(
        None, description="Jinja file that is the model's chat template, where its folder has none or another."
    )
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = Field(
        "auto",
        description="Attention kernel; auto is flash attention where installed on a GPU, variable-length sdpa on a CPU "
        "where the model supports it, else sdpa. The first two compute no padding. A model that lacks one gets the "
        "next simpler one, eager at last.",
    )
    gradient_checkpointing: bool = Field(
        False, description="Recompute activations in the backward pass: less memory, about a third slower."
    )
    lora_rank: int = Field(
        0,
        ge=0,
        le=1024,
        description="Rank of low-rank adapters (LoRA) that are trained in place of the weights; 0 trains all weights.",
    )
    lora_alpha: float | None = Field(
        None, gt=0, description="Strength of the adapters: they count alpha / rank times; unset, twice the rank."
    )
    lora_targets: tuple[str, ...] = Field(
        (), description="Names of the layers that get adapters, as q_proj; none named, all linear ones."
    )
    load_in_4bit: bool = Field(
        False, description="Hold the frozen weights in 4 bits (NF4) under adapters. Needs bitsandbytes."
    )

    @property
    def lora_scale(self) -> float:
        """The alpha in force."""
        return self.lora_alpha if self.lora_alpha is not None else 2.0 * self.lora_rank

    @model_validator(mode="after")
    def _four_bits_need_adapters(self) -> Self:
        if self.load_in_4bit and not self.lora_rank:
            raise ValueError(
                "load_in_4bit needs lora_rank, as 16: weights of 4 bits cannot learn, adapters on them can"
            )
        return self


class HyperparamSettings(Section):
    """How weights are changed. The defaults suit the built-in tiny model."""

    batch_size: int = Field(32, ge=1, le=4096, description="Rows in one forward pass on one device.")
    gradient_accumulation: int = Field(1, ge=1, le=4096, description="Forward passes in one optimizer step.")
    learning_rate: float = Field(
        2e-3,
        gt=0,
        le=1e-2,
        description="Peak learning rate; 1e-5 to 5e-5 suits a pretrained model of a billion parameters.",
    )
    warmup_steps: int | None = Field(
        None,
        ge=0,
        description="Steps of linear warm-up after a start with a fresh optimizer; never again after. Unset, 6 % of "
        "the first batch's steps, from 1 to 20.",
    )
    schedule: Literal["constant", "linear_per_segment", "cosine_per_segment"] = Field(
        "linear_per_segment", description="Shape of the learning rate over each planned segment."
    )
    num_epochs: int = Field(1, ge=1, le=100, description="How often each row of a batch is trained on.")
    max_steps: int | None = Field(
        None, ge=1, description="Training ends at this step, counted from the base model, though rows be left."
    )
    save_steps: int | None = Field(
        None,
        ge=1,
        description="A segment saves and ends after this many steps; the learning rate goes on as if it had not.",
    )
    segment_max_s: float = Field(
        SEGMENT_LIMIT_S, gt=0, le=SEGMENT_LIMIT_S, description="A segment stops and saves after this long."
    )
    max_length: int = Field(
        1024, ge=8, le=1_048_576, description="Longest row in tokens; longer ones are left out and counted."
    )
    fp_precision: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        "auto",
        description="Precision in which training computes (autocast); trained weights are held in fp32, and saved in "
        "the precision of the base model. auto is bf16 on a GPU that has it and fp32 elsewhere; fp16 scales its "
        "gradients.",
    )
    weight_decay: float = Field(0.0, ge=0, le=1, description="Decoupled weight decay, on matrices only.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are clipped to this global norm.")


class ProfileSettings(Section):
    """The profile that formats examples for training and parses answers."""

    name: str = Field("plain", min_length=1, description="Name of a profile; `ratchet.profiles` plug-ins count.")
    options: dict[str, Any] = Field(default_factory=dict, description="Options that the profile documents.")
    template_variables: dict[str, Any] = Field(
        default_factory=dict,
        description="Variables of the model's chat template, as enable_thinking = false, for every prompt.",
    )


class MonitoringSettings(Section):
    """The system turn, and what a run reports of itself."""

    system_prompt_base: str = Field(
        "",
        description="System turn of every example and prompt that has none; `{date}` is the day.",
    )
    logging_steps: int = Field(10, ge=1, description="Steps between two points of the loss curve.")
    preview_backend: Literal["none", "local", "remote_3090"] = Field(
        "local",
        description="Who answers previews while training goes on: `local`, the model in training; "
        "`remote_3090`, a server that speaks the OpenAI chat API and holds the live weights; `none`, no previews.",
    )
    preview_interval: int = Field(100, ge=1, description="Steps between two previews.")
    preview_samples: int = Field(4, ge=1, le=64, description="Questions of one preview.")
    preview_url: str | None = Field(
        None, description="Address of the server that remote_3090 asks, as http://host:8765."
    )
    preview_model: str = Field("ratchet", min_length=1, description="Model name that remote_3090 asks for.")
    preview_api_key: SecretStr | None = Field(None, description="Bearer token of the server that remote_3090 asks.")

    @model_validator(mode="after")
    def _remote_has_an_address(self) -> Self:
        if self.preview_backend == "remote_3090" and not self.preview_url:
            raise ValueError("preview_backend remote_3090 needs preview_url, the address of the server to ask")
        return self


class DataSettings(Section):
    """The rows to train on, and their order."""

    dataset_path: Path | None = Field(
        None, description="JSONL file that `trainer` trains on; the loop trains on what is queued."
    )
    shuffle: bool = Field(True, description="Shuffle the rows (and group them by length); else the file's order.")
    seed: int = Field(42, ge=0, lt=2**63, description="Seed of the order of rows and of dropout.")


class RunDataSettings(DataSettings):
    """The rows of one run, and where in their order it begins."""

    dataset_path: Path = Field(description="JSONL file with one example per line.")
    offset: int = Field(
        0, ge=0, description="Rows of the order to pass over; a state that is gone on from knows its own."
    )


class OutputSettings(Section):
    """Where `trainer` writes, and what it resumes from. The loop has its own folders."""

    output_dir: Path | None = Field(
        None, description="Folder of a run of `trainer`. Default: home/runs/ and the file's name."
    )
    resume_from: Path | None = Field(
        None, description="Folder of an earlier run to resume from exactly; unset, a fresh optimizer."
    )


class RunOutputSettings(OutputSettings):
    """Where one run writes, and what it resumes from."""

    output_dir: Path = Field(description="Folder of the run; holds `final_model`, `state` and the status.")
    resume_from: Path | None = Field(
        None, description="State folder of an earlier run to resume from exactly; unset, a fresh optimizer."
    )
    first_step: int = Field(
        0, ge=0, description="Step that a fresh optimizer counts from; a state that is gone on from knows its own."
    )


class EnvironmentSettings(Section):
    """What surrounds a run."""

    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="auto, cpu, cuda or cuda:N; auto takes a GPU where there is one.",
    )
    processes: Literal["auto"] | Annotated[int, Field(ge=1, le=64)] = Field(
        "auto",
        description="Processes that train one model together in the loop, one a card; auto is one for each card of "
        "this machine that has room for the lease of training, and one without a card. On a CPU they speak gloo.",
    )
    parallelism: Literal["ddp", "fsdp"] = Field(
        "ddp",
        description="How several processes hold one model: `ddp`, each the whole of it; `fsdp`, each a share "
        "of weights, gradients and optimizer (FSDP2). One process alone holds it whole.",
    )
    report_to: tuple[str, ...] = Field(
        (),
        description="Trackers that the Hugging Face Trainer reports to: tensorboard, wandb, mlflow, trackio.",
    )


class TrainerConfig(Section):
    """Everything one training run needs to know."""

    model: ModelSettings = Field(default_factory=ModelSettings, description=ModelSettings.__doc__)
    hyperparams: HyperparamSettings = Field(default_factory=HyperparamSettings, description=HyperparamSettings.__doc__)
    profile: ProfileSettings = Field(default_factory=ProfileSettings, description=ProfileSettings.__doc__)
    monitoring: MonitoringSettings = Field(default_factory=MonitoringSettings, description=MonitoringSettings.__doc__)
    locked: LockedSettings = Field(default_factory=LockedSettings, description=LockedSettings.__doc__)
    data: RunDataSettings = Field(description=RunDataSettings.__doc__)
    output: RunOutputSettings = Field(description=RunOutputSettings.__doc__)
    environment: EnvironmentSettings = Field(
        default_factory=EnvironmentSettings, description=EnvironmentSettings.__doc__
    )
