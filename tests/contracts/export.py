"""The committed documents that are made from the code: `make api-docs` writes them, test_documents.py compares them.

* `libs/contracts/aragora/contracts/schemas/<type>.json`: a JSON Schema of each event as it travels.
* `docs/api/<service>.openapi.json`: a service over HTTP.
* `docs/api/<service>.asyncapi.json`: the service on the bus.
* `deploy/nats/accounts.conf`: the users of the bus, as its servers are told of them.
* `libs/sdk/aragora/billing/tiers.py`: the tiers of the default plan catalog, for the SDK.
"""

import inspect
import json
from pathlib import Path
from typing import Any

from contracts.asyncapi import auth_on_the_bus, billing_on_the_bus, metering_on_the_bus, notifier_on_the_bus
from contracts.schemas import EXAMPLES, NATIVE, ROOT, schemas
from contracts.tiers import tiers_module

from aragora_nats.configuration import accounts_file
from auth import main as auth
from auth.settings import Settings as AuthSettings
from billing import main as billing
from billing.settings import CATALOGS, read_catalog
from billing.settings import Settings as BillingSettings
from metering import main as metering
from metering.settings import Settings
from notifier import main as notifier
from notifier.settings import Settings as NotifierSettings

SCHEMAS = ROOT / "libs/contracts/aragora/contracts/schemas"
API = ROOT / "docs/api"
ACCOUNTS = ROOT / "deploy/nats/accounts.conf"
TIERS = ROOT / "libs/sdk/aragora/billing/tiers.py"
DIALECT = "https://json-schema.org/draft/2020-12/schema"

__all__ = ["API", "EXAMPLES", "NATIVE", "ROOT", "SCHEMAS", "documents", "schemas"]


def documents() -> dict[Path, str]:
    """Every document by the path it is committed under."""
    found = {SCHEMAS / f"{name}.json": {"$schema": DIALECT, **schema} for name, schema in schemas().items()}
    auth_settings = AuthSettings(DATABASE_URL="postgresql://", ARAGORA_SEALING_KEYS="of nobody " * 4)
    found[API / "auth.openapi.json"] = auth.create_app(auth_settings).openapi()
    found[API / "auth.asyncapi.json"] = auth_on_the_bus()
    found[API / "metering.openapi.json"] = metering.create_app(Settings(DATABASE_URL="postgresql://")).openapi()
    found[API / "metering.asyncapi.json"] = metering_on_the_bus()
    found[API / "billing.openapi.json"] = billing.create_app(BillingSettings(DATABASE_URL="postgresql://")).openapi()
    found[API / "billing.asyncapi.json"] = billing_on_the_bus()
    notifier_settings = NotifierSettings(DATABASE_URL="postgresql://", ARAGORA_SEALING_KEYS="of nobody " * 4)
    found[API / "notifier.openapi.json"] = notifier.create_app(notifier_settings).openapi()
    found[API / "notifier.asyncapi.json"] = notifier_on_the_bus()
    texts = {path: json.dumps(_clean(each), indent=2, ensure_ascii=False) + "\n" for path, each in found.items()}
    return texts | {ACCOUNTS: accounts_file(), TIERS: tiers_module(read_catalog(CATALOGS[0]))}


def _clean(node: Any) -> Any:
    """Docstrings without their indentation, which Python 3.13 strips and earlier ones keep."""
    if isinstance(node, list):
        return [_clean(item) for item in node]
    if isinstance(node, dict):
        return {
            name: inspect.cleandoc(value) if name == "description" and isinstance(value, str) else _clean(value)
            for name, value in node.items()
        }
    return node


def main() -> None:
    """Write every document, and remove those of events that are gone."""
    wanted = documents()
    for path in {*SCHEMAS.glob("*.json"), *API.glob("*.json")} - wanted.keys():
        path.unlink()
    for path, text in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
