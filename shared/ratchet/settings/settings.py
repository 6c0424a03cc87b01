"""The root of the settings tree, and how it is loaded."""

from __future__ import annotations

import os
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from ratchet.errors import SettingsError
from ratchet.files import printable
from ratchet.settings.calibration import CalibrationSettings
from ratchet.settings.comparison import ComparisonSettings
from ratchet.settings.control import ControlSettings
from ratchet.settings.correction import CorrectionSettings
from ratchet.settings.curriculum import CurriculumSettings
from ratchet.settings.diversity import DiversitySettings
from ratchet.settings.file import read
from ratchet.settings.gate import GateSettings
from ratchet.settings.generation import GenerationSettings
from ratchet.settings.inference import InferenceSettings
from ratchet.settings.locked import LockedSettings
from ratchet.settings.metrics import MetricsSettings
from ratchet.settings.mining import MiningSettings
from ratchet.settings.nearest import explain, unknown
from ratchet.settings.placement import PlacementSettings
from ratchet.settings.queue import QueueSettings
from ratchet.settings.regression import RegressionSettings
from ratchet.settings.retention import RetentionSettings
from ratchet.settings.serving import ServingSettings
from ratchet.settings.stores import ArtifactSettings, LedgerSettings, RedisSettings
from ratchet.settings.suites import SuiteSettings
from ratchet.settings.training import (
    DataSettings,
    EnvironmentSettings,
    HyperparamSettings,
    ModelSettings,
    MonitoringSettings,
    OutputSettings,
    ProfileSettings,
)

FILE = "ratchet.toml"
_given_file: ContextVar[Path | None] = ContextVar("_given_file", default=None)


class Settings(BaseSettings):
    """Every setting of Ratchet. Environment variables are ``RATCHET_SECTION__FIELD``; the file is ``ratchet.toml``."""

    model_config = SettingsConfigDict(
        env_prefix="RATCHET_", env_nested_delimiter="__", extra="forbid", frozen=True, validate_default=True
    )

    home: Path = Field(Path("run"), description="Folder of everything that Ratchet keeps on this machine.")
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
    gate: GateSettings = Field(default_factory=GateSettings)
    inference: InferenceSettings = Field(default_factory=InferenceSettings)
    serving: ServingSettings = Field(default_factory=ServingSettings)
    retention: RetentionSettings = Field(default_factory=RetentionSettings)
    metrics: MetricsSettings = Field(default_factory=MetricsSettings)

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
    def serving_home(self) -> Path:
        return self.home.resolve() / "serving"

    @property
    def history_folder(self) -> Path:
        return self.home.resolve() / "history"

    @property
    def inbox(self) -> Path:
        return self.queue.inbox or self.home.resolve() / "inbox"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 -- the library calls it so
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file = _file()
        tree = read(file) if os.path.lexists(file) else {}
        return init_settings, env_settings, InitSettingsSource(settings_cls, tree)


def load(file: Path | None = None, **overrides: Any) -> Settings:
    """Settings from overrides, environment and file (TOML, or JSON as ``config.json``), in that precedence.

    Raises SettingsError that names each wrong key or value, for an unreadable file and an unknown variable too.
    """
    if file is not None and not os.path.lexists(file):
        raise SettingsError(f"{printable(file)}: no such file; `ratchet init` writes one.")
    _require_known_variables()
    token = _given_file.set(file)
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise SettingsError("settings are wrong:\n" + explain(error, Settings)) from error
    except ValueError as error:
        raise SettingsError(f"{printable(_file())}: {error}") from error
    finally:
        _given_file.reset(token)


def _file() -> Path:
    """The file in force, which need not be there."""
    return _given_file.get() or Path(os.environ.get("RATCHET_CONFIG", FILE))


def _require_known_variables() -> None:
    """A variable of an unknown section is no setting to pydantic, so it is looked for here."""
    for variable in os.environ:
        section, separator, field = variable.removeprefix("RATCHET_").lower().partition("__")
        if variable.startswith("RATCHET_") and separator and section not in Settings.model_fields:
            raise SettingsError(f"{variable}: {unknown(f'{section}.{field}', Settings)}")
