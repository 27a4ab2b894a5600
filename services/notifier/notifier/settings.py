"""Settings, from environment variables (docs/configuration.md). Every default is safe on one's own machine."""

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Literal

from pydantic import Field, FilePath, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from aragora.chassis.sealing import Sealer

Network = IPv4Network | IPv6Network
SERVICE = "notifier"


class Settings(BaseSettings):
    """What the notifier can be told. A wrong value stops the service at start, naming the variable."""

    model_config = SettingsConfigDict(extra="ignore", populate_by_name=True, frozen=True)

    database_url: Annotated[str, Field(alias="DATABASE_URL")]
    nats_url: Annotated[str, Field(alias="NATS_URL")] = "nats://127.0.0.1:4222"
    nats_user: Annotated[str | None, Field(alias="NATS_USER")] = None
    nats_password: Annotated[str | None, Field(alias="NATS_PASSWORD", repr=False)] = None
    service_keys: Annotated[str, Field(alias="ARAGORA_SERVICE_KEYS", repr=False)] = ""
    sealing_keys: Annotated[str, Field(alias="ARAGORA_SEALING_KEYS", repr=False)]
    public_url: Annotated[str, Field(alias="ARAGORA_PUBLIC_URL", pattern=r"^https?://[^\s?#]+$")] = (
        "http://127.0.0.1:8000"
    )
    app_url: Annotated[str, Field(alias="ARAGORA_APP_URL", pattern=r"^(https?://[^\s?#]+)?$")] = ""
    product_name: Annotated[str, Field(alias="ARAGORA_PRODUCT_NAME", min_length=1, max_length=60)] = "Aragora"
    smtp_host: Annotated[str, Field(alias="ARAGORA_SMTP_HOST")] = ""
    smtp_port: Annotated[int, Field(alias="ARAGORA_SMTP_PORT", ge=1, le=65535)] = 587
    smtp_user: Annotated[str, Field(alias="ARAGORA_SMTP_USER")] = ""
    smtp_password: Annotated[str, Field(alias="ARAGORA_SMTP_PASSWORD", repr=False)] = ""
    smtp_from: Annotated[str, Field(alias="ARAGORA_SMTP_FROM")] = "billing@aragora.ai"
    smtp_security: Annotated[Literal["starttls", "tls", "none", ""], Field(alias="ARAGORA_SMTP_SECURITY")] = ""
    smtp_ca_file: Annotated[FilePath | None, Field(alias="ARAGORA_SMTP_CA_FILE")] = None
    webhook: Annotated[str, Field(alias="ARAGORA_NOTIFICATION_WEBHOOK", repr=False)] = ""
    webhook_secret: Annotated[str, Field(alias="ARAGORA_NOTIFICATION_WEBHOOK_SECRET", repr=False)] = ""
    webhook_format: Annotated[Literal["standard", "slack"], Field(alias="ARAGORA_NOTIFICATION_WEBHOOK_FORMAT")] = (
        "standard"
    )
    allowed_networks: Annotated[str, Field(alias="ARAGORA_WEBHOOK_ALLOWED_NETWORKS")] = ""
    digest_hour: Annotated[int, Field(alias="ARAGORA_DIGEST_HOUR", ge=0, le=23)] = 8
    host: Annotated[str, Field(alias="ARAGORA_HOST")] = "127.0.0.1"
    port: Annotated[int, Field(alias="ARAGORA_PORT", ge=0, le=65535)] = 8000
    worker_port: Annotated[int | None, Field(alias="ARAGORA_WORKER_PORT", ge=0, le=65535)] = None
    drain_seconds: Annotated[float, Field(alias="ARAGORA_DRAIN_SECONDS", ge=0)] = 0.0
    log_level: Annotated[str, Field(alias="ARAGORA_LOG_LEVEL")] = "INFO"
    log_format: Annotated[str, Field(alias="ARAGORA_LOG_FORMAT", pattern="^(json|console)$")] = "json"

    @field_validator("sealing_keys")
    @classmethod
    def _usable(cls, value: str) -> str:
        Sealer(value, SERVICE)
        return value

    @field_validator("allowed_networks")
    @classmethod
    def _readable(cls, value: str) -> str:
        _networks(value)
        return value

    @property
    def networks(self) -> tuple[Network, ...]:
        """Networks that endpoints may be in although they are not public."""
        return _networks(self.allowed_networks)

    @property
    def security(self) -> Literal["starttls", "tls", "none"]:
        """How the way to the mail server is protected: by its port, unless it is said."""
        return self.smtp_security or ("tls" if self.smtp_port == 465 else "starttls")

    @property
    def app(self) -> str:
        """Where people use the product, without a slash at the end."""
        return (self.app_url or self.public_url).rstrip("/")


def _networks(text: str) -> tuple[Network, ...]:
    try:
        return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise ValueError(f"{error}; write networks like 10.0.0.0/8 or fd00::/8, separated by commas") from error
