from pathlib import Path
from urllib.parse import urlsplit

import pytest

from aragora.chassis.security import parse_service_keys
from billing.settings import Settings as BillingSettings
from metering.settings import Settings as MeteringSettings
from standalone import credentials
from standalone.datadir import Running
from standalone.nats import OPERATOR
from standalone.platform import environment

RUNNING = Running(pid=7, host="127.0.0.1", port=8000, postgres_port=1, nats_port=2, monitoring_port=3)


def test_each_service_has_its_own_database_and_its_own_user_of_the_bus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for inherited in ("ARAGORA_SERVICE_KEYS", "ARAGORA_JWT_SECRET", "ARAGORA_CATALOG"):
        monkeypatch.delenv(inherited, raising=False)
    # Whatever the terminal had set for one service must not lead another one astray.
    monkeypatch.setenv("DATABASE_URL", "postgresql://elsewhere/other")
    monkeypatch.setenv("NATS_USER", "somebody")
    secrets = credentials.read_or_make(tmp_path)
    of_metering = MeteringSettings.model_validate(environment(secrets, RUNNING, "metering"))
    of_billing = BillingSettings.model_validate(environment(secrets, RUNNING, "billing"))
    for settings, service in ((of_metering, "metering"), (of_billing, "billing")):
        url = urlsplit(settings.database_url)
        assert (url.username, url.password, url.port) == (f"aragora_{service}", secrets.databases[service], 1)
        assert url.path == f"/aragora_{service}"
        assert (settings.nats_user, settings.nats_password) == (service, secrets.bus[service])
    assert of_metering.service_keys == of_billing.service_keys == secrets.service_keys()
    assert environment(secrets, RUNNING, account=OPERATOR)["NATS_PASSWORD"] == secrets.bus["operator"]


def test_the_operators_own_keys_and_secret_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARAGORA_SERVICE_KEYS", f"debates:{'0' * 64}:usage.write")
    monkeypatch.setenv("ARAGORA_JWT_SECRET", "of the operator, and long enough for it")
    secrets = credentials.read_or_make(tmp_path)
    given = environment(secrets, RUNNING, "billing")
    assert [key.name for key in parse_service_keys(given["ARAGORA_SERVICE_KEYS"])] == ["debates", "operator"]
    assert given["ARAGORA_JWT_SECRET"] == "of the operator, and long enough for it"
