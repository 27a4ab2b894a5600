"""Settings, from environment variables (docs/configuration.md). Every default is safe on one's own machine."""

import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated

from pydantic import Field, FilePath, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from billing.catalog import Catalog, CatalogError, parse

CATALOGS = ("aragora", "alwrity")
"""The catalogs that come with the service, by the name to choose them with."""


PRICE_VARIABLE = "STRIPE_PRICE_"


def price_variable(plan: str) -> str:
    """The environment variable that holds Stripe's price of a plan: STRIPE_PRICE_STARTER for `starter`."""
    return PRICE_VARIABLE + plan.upper().replace("-", "_")


def prices_from_environment() -> Mapping[str, str]:
    """Stripe's prices by variable, as far as they are set."""
    return {name: value for name, value in os.environ.items() if name.startswith(PRICE_VARIABLE) and value.strip()}


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
    grace_days: Annotated[int, Field(alias="ARAGORA_PAYMENT_GRACE_DAYS", ge=1, le=365)] = 10
    stripe_secret_key: Annotated[str, Field(alias="STRIPE_SECRET_KEY", repr=False)] = ""
    stripe_webhook_secret: Annotated[str, Field(alias="STRIPE_WEBHOOK_SECRET", repr=False)] = ""
    stripe_api_base: Annotated[str, Field(alias="STRIPE_API_BASE")] = ""
    stripe_prices: Annotated[Mapping[str, str], Field(default_factory=prices_from_environment)]
    """Stripe's prices by variable: several, separated by commas, where older ones still have subscribers."""
    invoice_day: Annotated[int, Field(alias="ARAGORA_INVOICE_DAY", ge=1, le=28)] = 5
    invoice_from: Annotated[str, Field(alias="ARAGORA_INVOICE_FROM", min_length=1)] = "Aragora"
    invoice_font: Annotated[FilePath | None, Field(alias="ARAGORA_INVOICE_FONT")] = None
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
