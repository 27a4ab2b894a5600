from pathlib import Path
from urllib.parse import urlsplit

import pytest

from aragora.chassis.security import parse_service_keys
from auth.settings import Settings as AuthSettings
from billing.settings import Settings as BillingSettings
from metering.settings import Settings as MeteringSettings
from standalone import credentials
from standalone.datadir import Running
from standalone.nats import OPERATOR
from standalone.platform import AUTH_ONLY, OPERATOR_EMAIL, environment, operator_account

RUNNING = Running(pid=7, host="127.0.0.1", port=8000, postgres_port=1, nats_port=2, monitoring_port=3)


def test_each_service_has_its_own_database_and_its_own_user_of_the_bus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for inherited in ("ARAGORA_SERVICE_KEYS", "ARAGORA_JWT_SECRET", "ARAGORA_CATALOG", *AUTH_ONLY):
        monkeypatch.delenv(inherited, raising=False)
    # Whatever the terminal had set for one service must not lead another one astray.
    monkeypatch.setenv("DATABASE_URL", "postgresql://elsewhere/other")
    monkeypatch.setenv("NATS_USER", "somebody")
    secrets = credentials.read_or_make(tmp_path)
    of_metering = MeteringSettings.model_validate(environment(secrets, RUNNING, "metering"))
    of_billing = BillingSettings.model_validate(environment(secrets, RUNNING, "billing"))
    of_auth = AuthSettings.model_validate(environment(secrets, RUNNING, "auth"))
    for settings, service in ((of_auth, "auth"), (of_metering, "metering"), (of_billing, "billing")):
        url = urlsplit(settings.database_url)
        assert (url.username, url.password, url.port) == (f"aragora_{service}", secrets.databases[service], 1)
        assert url.path == f"/aragora_{service}"
        assert (settings.nats_user, settings.nats_password) == (service, secrets.bus[service])
    assert {one.service_keys for one in (of_auth, of_metering, of_billing)} == {secrets.service_keys()}
    assert environment(secrets, RUNNING, account=OPERATOR)["NATS_PASSWORD"] == secrets.bus["operator"]


def test_the_operators_own_keys_and_secret_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARAGORA_SERVICE_KEYS", f"debates:{'0' * 64}:usage.write")
    monkeypatch.setenv("ARAGORA_JWT_SECRET", "of the operator, and long enough for it")
    secrets = credentials.read_or_make(tmp_path)
    given = environment(secrets, RUNNING, "billing")
    assert [key.name for key in parse_service_keys(given["ARAGORA_SERVICE_KEYS"])] == ["debates", "operator"]
    assert given["ARAGORA_JWT_SECRET"] == "of the operator, and long enough for it"


def test_only_auth_is_told_what_lets_one_sign_in_as_anybody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in AUTH_ONLY:
        monkeypatch.setenv(name, f"of the operator, for {name}")
    secrets = credentials.read_or_make(tmp_path)
    for service in ("metering", "billing"):
        # Empty, rather than absent: a child inherits what is absent.
        assert {environment(secrets, RUNNING, service)[name] for name in AUTH_ONLY} == {""}
        assert secrets.sealing_key not in environment(secrets, RUNNING, service).values()


def test_the_operators_account_is_as_they_say_else_made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for inherited in AUTH_ONLY:
        monkeypatch.delenv(inherited, raising=False)
    secrets = credentials.read_or_make(tmp_path)
    assert operator_account(secrets) == (OPERATOR_EMAIL, secrets.operator_password)
    of_auth = AuthSettings.model_validate(environment(secrets, RUNNING, "auth"))
    assert (of_auth.operator_email, of_auth.operator_password) == operator_account(secrets)
    assert of_auth.sealing_keys == secrets.sealing_key
    monkeypatch.setenv("ARAGORA_OPERATOR_EMAIL", "ada@example.com")
    monkeypatch.setenv("ARAGORA_OPERATOR_PASSWORD", "chosen by the operator")
    monkeypatch.setenv("ARAGORA_SEALING_KEYS", "a new key of thirty-two bytes, and more,and the old one of them all")
    told = environment(secrets, RUNNING, "auth")
    assert [told[name] for name in ("ARAGORA_OPERATOR_EMAIL", "ARAGORA_OPERATOR_PASSWORD")] == [
        "ada@example.com",
        "chosen by the operator",
    ]
    assert told["ARAGORA_SEALING_KEYS"].startswith("a new key")
