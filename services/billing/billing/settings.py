"""Settings, from environment variables (docs/configuration.md). Every default is safe on one's own machine."""

from importlib.resources import files
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from billing.catalog import Catalog, CatalogError, parse

CATALOGS = ("aragora", "alwrity")
"""The catalogs that come with the service, by the name to choose them with."""


class Settings(BaseSettings):
    """What billing can be told. A wrong value stops the service at start, naming the variable."""

    model_config = SettingsConfigDict(extra="ignore", populate_by_name=True, frozen=True)

    database_url: Annotated[str, Field(alias="DATABASE_URL")]
    nats_url: Annotated[str, Field(alias="NATS_URL")] = "nats://127.0.0.1:4222"
    nats_user: Annotated[str | None, Field(alias="NATS_USER")] = None
    nats_password: Annotated[str | None, Field(alias="NATS_PASSWORD", repr=False)] = None
    service_keys: Annotated[str, Field(alias="ARAGORA_SERVICE_KEYS", repr=False)] = ""
    catalog: Annotated[str, Field(alias="ARAGORA_CATALOG")] = CATALOGS[0]
    host: Annotated[str, Field(alias="ARAGORA_HOST")] = "127.0.0.1"
    port: Annotated[int, Field(alias="ARAGORA_PORT", ge=0, le=65535)] = 8000
    worker_port: Annotated[int | None, Field(alias="ARAGORA_WORKER_PORT", ge=0, le=65535)] = None
    drain_seconds: Annotated[float, Field(alias="ARAGORA_DRAIN_SECONDS", ge=0)] = 0.0
    log_level: Annotated[str, Field(alias="ARAGORA_LOG_LEVEL")] = "INFO"
    log_format: Annotated[str, Field(alias="ARAGORA_LOG_FORMAT", pattern="^(json|console)$")] = "json"

    @field_validator("catalog")
    @classmethod
    def _usable(cls, value: str) -> str:
        read_catalog(value)
        return value


def read_catalog(choice: str) -> Catalog:
    """The catalog of this name, or in the file at this path.

    Raises:
        CatalogError: there is no such file, or it cannot be used.
    """
    try:
        if choice in CATALOGS:
            return parse(files("billing").joinpath(f"catalogs/{choice}.toml").read_text(encoding="utf-8"), choice)
        return parse(Path(choice).read_text(encoding="utf-8"), choice)
    except OSError as error:
        known = " or ".join(CATALOGS)
        raise CatalogError(f"{choice} cannot be read ({error.strerror}); choose {known}, or a file's path") from error
    except UnicodeDecodeError as error:
        raise CatalogError(
            f"{choice} is not UTF-8, as TOML must be (at byte {error.start}); save it as that"
        ) from error
