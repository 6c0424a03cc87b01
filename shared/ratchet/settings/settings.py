"""The root of the settings tree, and how it is loaded: ``--set`` > environment > file > defaults."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, model_validator

from ratchet.errors import SettingsError
from ratchet.printable import printable
from ratchet.settings import sources
from ratchet.settings.control import ControlSettings, MetricsSettings, PlacementSettings
from ratchet.settings.data import (
    CorrectionSettings,
    CurriculumSettings,
    DiversitySettings,
    GenerationSettings,
    QueueSettings,
)
from ratchet.settings.judging import (
    CalibrationSettings,
    ComparisonSettings,
    GateSettings,
    JudgeSettings,
    MiningSettings,
    RegressionSettings,
    SuiteSettings,
)
from ratchet.settings.plugin_sections import declared_section
from ratchet.settings.section import Section
from ratchet.settings.serving import InferenceSettings, ServingSettings
from ratchet.settings.stores import ArtifactSettings, LedgerSettings, RedisSettings, RetentionSettings
from ratchet.settings.training import (
    DataSettings,
    EnvironmentSettings,
    HyperparamSettings,
    LockedSettings,
    ModelSettings,
    MonitoringSettings,
    OutputSettings,
    ProfileSettings,
)
from ratchet.settings.web import WebSettings

BUILT_IN = "tiny"
"""``model.path`` of the built-in model."""

CALLER = "the call"
"""Origin of values that were passed to ``load`` itself."""

OwnSection = TypeVar("OwnSection", bound=Section)


class Settings(BaseModel):
    """Every setting of Ratchet. Environment variables are ``RATCHET_SECTION__FIELD``; the file is ``ratchet.toml``.

    The schema reads neither: ``load`` does.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, defer_build=True)

    home: Path = Field(Path("run"), description="Folder for all of Ratchet's data on this machine.")
    model: ModelSettings = Field(default_factory=ModelSettings)
    hyperparams: HyperparamSettings = Field(default_factory=HyperparamSettings)
    profile: ProfileSettings = Field(default_factory=ProfileSettings)
    monitoring: MonitoringSettings = Field(default_factory=MonitoringSettings)
    locked: LockedSettings = Field(default_factory=LockedSettings)
    data: DataSettings = Field(default_factory=DataSettings)
    output: OutputSettings = Field(default_factory=OutputSettings)
    environment: EnvironmentSettings = Field(default_factory=EnvironmentSettings)
    ledger: LedgerSettings = Field(default_factory=LedgerSettings)
    artifacts: ArtifactSettings = Field(default_factory=ArtifactSettings)
    redis: RedisSettings = Field(default_factory=RedisSettings)
    placement: PlacementSettings = Field(default_factory=PlacementSettings)
    control: ControlSettings = Field(default_factory=ControlSettings)
    queue: QueueSettings = Field(default_factory=QueueSettings)
    suites: SuiteSettings = Field(default_factory=SuiteSettings)
    mining: MiningSettings = Field(default_factory=MiningSettings)
    correction: CorrectionSettings = Field(default_factory=CorrectionSettings)
    diversity: DiversitySettings = Field(default_factory=DiversitySettings)
    curriculum: CurriculumSettings = Field(default_factory=CurriculumSettings)
    generation: GenerationSettings = Field(default_factory=GenerationSettings)
    regression: RegressionSettings = Field(default_factory=RegressionSettings)
    comparison: ComparisonSettings = Field(default_factory=ComparisonSettings)
    calibration: CalibrationSettings = Field(default_factory=CalibrationSettings)
    judge: JudgeSettings = Field(default_factory=JudgeSettings)
    gate: GateSettings = Field(default_factory=GateSettings)
    inference: InferenceSettings = Field(default_factory=InferenceSettings)
    serving: ServingSettings = Field(default_factory=ServingSettings)
    retention: RetentionSettings = Field(default_factory=RetentionSettings)
    metrics: MetricsSettings = Field(default_factory=MetricsSettings)
    web: WebSettings = Field(default_factory=WebSettings)

    @model_validator(mode="before")
    @classmethod
    def _own_models_have_no_built_in_tasks(cls, tree: Any) -> Any:
        """The built-in families are for the built-in model, and for whoever names them."""
        if not isinstance(tree, Mapping):
            return tree
        model, suites = tree.get("model", {}), tree.get("suites", {})
        path = model.get("path", BUILT_IN) if isinstance(model, Mapping) else getattr(model, "path", BUILT_IN)
        if path == BUILT_IN or not isinstance(suites, Mapping) or "families" in suites:
            return tree
        return {**tree, "suites": {**suites, "families": ()}}

    @property
    def ledger_url(self) -> str:
        return self.ledger.address or f"sqlite:///{self.home.resolve() / 'ledger.db'}"

    @property
    def artifact_url(self) -> str:
        return self.artifacts.url or f"file://{self.home.resolve() / 'artifacts'}"

    @property
    def artifact_cache(self) -> Path:
        """Copies of a remote store's artifacts, shared by all processes of this machine."""
        return self.home.resolve() / "cache"

    @property
    def work_folder(self) -> Path:
        return self.home.resolve() / "work"

    @property
    def lease_folder(self) -> Path:
        return self.home.resolve() / "leases"

    @property
    def log_folder(self) -> Path:
        return self.home.resolve() / "logs"

    @property
    def status_folder(self) -> Path:
        return self.home.resolve() / "status"

    @property
    def verdict_folder(self) -> Path:
        """What the gate decided on each checkpoint: a folder with verdict.json and verdict.md for each."""
        return self.home.resolve() / "verdicts"

    @property
    def serving_home(self) -> Path:
        return self.home.resolve() / "serving"

    @property
    def web_home(self) -> Path:
        """The page's own folder: its key, its address, uploads and running jobs."""
        return self.home.resolve() / "web"

    @property
    def history_folder(self) -> Path:
        return self.home.resolve() / "history"

    @property
    def inbox(self) -> Path:
        return self.queue.inbox or self.home.resolve() / "inbox"

    def section(self, kind: type[OwnSection]) -> OwnSection:
        """The section that a plug-in system declares with ``System(settings=kind)``, or its defaults if it is not
        set."""
        for name in type(self).model_fields:
            if isinstance(value := getattr(self, name), kind):
                return value
        return kind()


def load(file: Path | None = None, **overrides: Any) -> Settings:
    """The settings in force. ``overrides`` take precedence over environment and file (TOML, or JSON such as
    ``config.json``).

    Raises SettingsError, which names each wrong key, value and variable, also for an unreadable file.
    """
    return load_with_origins(file, **overrides)[0]


def load_with_origins(
    file: Path | None = None, *, sections: Collection[str] = (), **overrides: Any
) -> tuple[Settings, dict[str, str]]:
    """The settings, and the origin of each value that is not a default, by dotted name.

    ``sections`` names plug-in systems whose sections are included even if nothing sets them.
    """
    if file is not None and not os.path.lexists(file):
        raise SettingsError(f"{printable(file)}: no such file; `ratchet init` writes one.")
    in_force, layers = sources.file_in_force(file), sources.Layers()
    if os.path.lexists(in_force):
        layers.lay(sources.read_file(in_force), printable(in_force))
    named = {*layers.tree, *overrides, *sections, *(path[0] for path in sources.variables())}
    schema = schema_with(named)
    sources.lay_environment(layers, schema)
    layers.lay(overrides, CALLER)
    return _validated(schema, layers.tree), layers.origins


def from_values(values: Mapping[str, Any]) -> Settings:
    """Settings from a tree such as ``reveal`` returns, without file or environment. Raises SettingsError."""
    return _validated(schema_with(values), values)


def schema_with(names: Collection[str]) -> type[Settings]:
    """The schema with the sections of the plug-in systems among the names."""
    declared = {name: declared_section(name) for name in sorted({*names} - {*Settings.model_fields})}
    return _schema(tuple((name, kind) for name, kind in declared.items() if kind is not None))


@cache
def _schema(added: tuple[tuple[str, type[Section]], ...]) -> type[Settings]:
    """One class for the same sections, since settings of two classes are never equal."""
    fields: dict[str, Any] = {name: (kind, Field(default_factory=kind)) for name, kind in added}
    return create_model("Settings", __base__=Settings, **fields) if fields else Settings


def _validated(schema: type[Settings], tree: Mapping[str, Any]) -> Settings:
    # A section that is left out is validated as an empty one: its default would build a validator of its own.
    sections = (name for name, info in schema.model_fields.items() if sources.is_section(info.annotation))
    try:
        return schema.model_validate({**{name: {} for name in sections}, **tree})
    except ValidationError as error:
        raise SettingsError("settings are wrong:\n" + sources.explain(error, schema)) from error
