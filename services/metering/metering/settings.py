"""Settings, from environment variables (docs/configuration.md). Every default is safe on one's own machine."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class Settings(BaseSettings):
    """What metering can be told. A wrong value stops the service at start, naming the variable."""

    model_config = SettingsConfigDict(extra="ignore", populate_by_name=True, frozen=True)

    database_url: Annotated[str, Field(alias="DATABASE_URL")]
    nats_url: Annotated[str, Field(alias="NATS_URL")] = "nats://127.0.0.1:4222"
    nats_user: Annotated[str | None, Field(alias="NATS_USER")] = None
    nats_password: Annotated[str | None, Field(alias="NATS_PASSWORD", repr=False)] = None
    service_keys: Annotated[str, Field(alias="ARAGORA_SERVICE_KEYS", repr=False)] = ""
    price_tables: Annotated[tuple[Path, ...], NoDecode, Field(alias="ARAGORA_PRICE_TABLES")] = ()
    limits_fail_open: Annotated[bool, Field(alias="ARAGORA_LIMITS_FAIL_OPEN")] = False
    period_close_days: Annotated[int, Field(alias="ARAGORA_PERIOD_CLOSE_DAYS", ge=0, le=60)] = 3
    host: Annotated[str, Field(alias="ARAGORA_HOST")] = "127.0.0.1"
    port: Annotated[int, Field(alias="ARAGORA_PORT", ge=0, le=65535)] = 8000
    worker_port: Annotated[int | None, Field(alias="ARAGORA_WORKER_PORT", ge=0, le=65535)] = None
    drain_seconds: Annotated[float, Field(alias="ARAGORA_DRAIN_SECONDS", ge=0)] = 0.0
    log_level: Annotated[str, Field(alias="ARAGORA_LOG_LEVEL")] = "INFO"
    log_format: Annotated[str, Field(alias="ARAGORA_LOG_FORMAT", pattern="^(json|console)$")] = "json"

    @field_validator("price_tables", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [part for part in value.split(":") if part] if isinstance(value, str) else value
