"""Settings, from environment variables (docs/configuration.md). Every default is safe on one's own machine."""

from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from aragora.chassis.sealing import Sealer


class Settings(BaseSettings):
    """What auth can be told. A wrong value stops the service at start, naming the variable."""

    model_config = SettingsConfigDict(extra="ignore", populate_by_name=True, frozen=True)

    database_url: Annotated[str, Field(alias="DATABASE_URL")]
    nats_url: Annotated[str, Field(alias="NATS_URL")] = "nats://127.0.0.1:4222"
    nats_user: Annotated[str | None, Field(alias="NATS_USER")] = None
    nats_password: Annotated[str | None, Field(alias="NATS_PASSWORD", repr=False)] = None
    service_keys: Annotated[str, Field(alias="ARAGORA_SERVICE_KEYS", repr=False)] = ""
    sealing_keys: Annotated[str, Field(alias="ARAGORA_SEALING_KEYS", repr=False)]
    operator_email: Annotated[str | None, Field(alias="ARAGORA_OPERATOR_EMAIL")] = None
    operator_password: Annotated[str | None, Field(alias="ARAGORA_OPERATOR_PASSWORD", repr=False)] = None
    password_memory_kib: Annotated[int, Field(alias="ARAGORA_PASSWORD_MEMORY_KIB", ge=7168, le=1048576)] = 19456
    password_time_cost: Annotated[int, Field(alias="ARAGORA_PASSWORD_TIME_COST", ge=1, le=32)] = 2
    trusted_proxies: Annotated[str, Field(alias="ARAGORA_TRUSTED_PROXIES")] = ""
    host: Annotated[str, Field(alias="ARAGORA_HOST")] = "127.0.0.1"
    port: Annotated[int, Field(alias="ARAGORA_PORT", ge=0, le=65535)] = 8000
    worker_port: Annotated[int | None, Field(alias="ARAGORA_WORKER_PORT", ge=0, le=65535)] = None
    drain_seconds: Annotated[float, Field(alias="ARAGORA_DRAIN_SECONDS", ge=0)] = 0.0
    log_level: Annotated[str, Field(alias="ARAGORA_LOG_LEVEL")] = "INFO"
    log_format: Annotated[str, Field(alias="ARAGORA_LOG_FORMAT", pattern="^(json|console)$")] = "json"

    @field_validator("sealing_keys")
    @classmethod
    def _usable(cls, value: str) -> str:
        Sealer(value, "auth")
        return value
