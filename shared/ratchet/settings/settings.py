"""The root of the settings tree, and how it is loaded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from ratchet.errors import SettingsError
from ratchet.settings.calibration import CalibrationSettings
from ratchet.settings.control import ControlSettings
from ratchet.settings.curriculum import CurriculumSettings
from ratchet.settings.gate import GateSettings
from ratchet.settings.inference import InferenceSettings
from ratchet.settings.metrics import MetricsSettings
from ratchet.settings.placement import PlacementSettings
from ratchet.settings.queue import QueueSettings
from ratchet.settings.regression import RegressionSettings
from ratchet.settings.retention import RetentionSettings
from ratchet.settings.serving import ServingSettings
from ratchet.settings.stores import ArtifactSettings, LedgerSettings, RedisSettings
from ratchet.settings.suites import SuiteSettings
from ratchet.settings.training import (
    EnvironmentSettings,
    HyperparamSettings,
    ModelSettings,
    MonitoringSettings,
    ProfileSettings,
)

FILE = "ratchet.toml"


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
    environment: EnvironmentSettings = Field(default_factory=EnvironmentSettings)
    ledger: LedgerSettings = Field(default_factory=LedgerSettings)
    artifacts: ArtifactSettings = Field(default_factory=ArtifactSettings)
    redis: RedisSettings = Field(default_factory=RedisSettings)
    placement: PlacementSettings = Field(default_factory=PlacementSettings)
    control: ControlSettings = Field(default_factory=ControlSettings)
    queue: QueueSettings = Field(default_factory=QueueSettings)
    suites: SuiteSettings = Field(default_factory=SuiteSettings)
    curriculum: CurriculumSettings = Field(default_factory=CurriculumSettings)
    regression: RegressionSettings = Field(default_factory=RegressionSettings)
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
        file = Path(os.environ.get("RATCHET_CONFIG", FILE))
        toml = TomlConfigSettingsSource(settings_cls, toml_file=file if file.exists() else None)
        return init_settings, env_settings, toml


def load(file: Path | None = None, **overrides: Any) -> Settings:
    """Settings from overrides, environment and file, in that precedence.

    Raises SettingsError that names each wrong key or value, for an unreadable file too.
    """
    if file is not None:
        if not file.exists():
            raise SettingsError(f"{file}: no such file; `ratchet init` writes one.")
        os.environ["RATCHET_CONFIG"] = str(file.resolve())
    try:
        return Settings(**overrides)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise SettingsError("settings are wrong:\n" + "\n".join(lines)) from error
    except ValueError as error:
        raise SettingsError(f"{os.environ.get('RATCHET_CONFIG', FILE)}: {error}") from error
