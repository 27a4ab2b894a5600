from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from aragora.chassis.security import parse_service_keys
from auth.settings import Settings as AuthSettings
from billing.settings import Settings as BillingSettings
from metering.settings import Settings as MeteringSettings
from notifier.settings import Settings as NotifierSettings
from standalone import credentials
from standalone.datadir import Running
from standalone.nats import OPERATOR
from standalone.service_settings import OPERATOR_EMAIL, SECRETS_OF, environment, mailbox_url, operator_account

RUNNING = Running(pid=7, host="127.0.0.1", port=8000, postgres_port=1, nats_port=2, monitoring_port=3)
AnySettings = AuthSettings | MeteringSettings | BillingSettings | NotifierSettings
PUBLIC = ("ARAGORA_PUBLIC_URL", "ARAGORA_WEBHOOK_ALLOWED_NETWORKS", "ARAGORA_SMTP_HOST", "ARAGORA_SMTP_USER")


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the terminal has set about letters and secrets."""
    for inherited in (*PUBLIC, *(name for names in SECRETS_OF.values() for name in names)):
        monkeypatch.delenv(inherited, raising=False)


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
    of_auth = AuthSettings.model_validate(environment(secrets, RUNNING, "auth"))
    of_notifier = NotifierSettings.model_validate(environment(secrets, RUNNING, "notifier"))
    all_of_them: tuple[AnySettings, ...] = (of_auth, of_metering, of_billing, of_notifier)
    for settings, service in zip(all_of_them, credentials.SERVICES, strict=True):
        url = urlsplit(settings.database_url)
        assert (url.username, url.password, url.port) == (f"aragora_{service}", secrets.databases[service], 1)
        assert url.path == f"/aragora_{service}"
        assert (settings.nats_user, settings.nats_password) == (service, secrets.bus[service])
    assert {one.service_keys for one in all_of_them} == {secrets.service_keys()}
    assert environment(secrets, RUNNING, account=OPERATOR)["NATS_PASSWORD"] == secrets.bus["operator"]


def test_the_operators_own_keys_and_secret_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARAGORA_SERVICE_KEYS", f"debates:{'0' * 64}:usage.write")
    monkeypatch.setenv("ARAGORA_JWT_SECRET", "of the operator, and long enough for it")
    secrets = credentials.read_or_make(tmp_path)
    given = environment(secrets, RUNNING, "billing")
    assert [key.name for key in parse_service_keys(given["ARAGORA_SERVICE_KEYS"])] == ["debates", "operator"]
    assert given["ARAGORA_JWT_SECRET"] == "of the operator, and long enough for it"


def test_no_service_is_told_the_secrets_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in {name for names in SECRETS_OF.values() for name in names}:
        monkeypatch.setenv(name, f"of the operator, for {name}")
    secrets = credentials.read_or_make(tmp_path)
    for service, own in SECRETS_OF.items():
        told = environment(secrets, RUNNING, service)
        others = {name for names in SECRETS_OF.values() for name in names} - set(own)
        # Empty, rather than absent: a child inherits what is absent.
        assert {told[name] for name in others} == {""}
        for key in {secrets.sealing_key, secrets.notifier_sealing_key, secrets.mailbox_key}:
            assert key not in told.values()
    for name in SECRETS_OF["auth"]:
        monkeypatch.delenv(name)
    sealed_with = {service: environment(secrets, RUNNING, service)["ARAGORA_SEALING_KEYS"] for service in SECRETS_OF}
    assert sealed_with == {
        "auth": secrets.sealing_key, "notifier": secrets.notifier_sealing_key, "metering": "", "billing": "",
    }  # fmt: skip


def test_letters_go_to_the_mailbox_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = credentials.read_or_make(tmp_path)
    certificate = tmp_path / "mailbox.crt"
    certificate.touch()
    here = replace(RUNNING, smtp_port=25, mailbox_port=26, smtp_ca_file=str(certificate))
    told = NotifierSettings.model_validate(environment(secrets, here, "notifier"))
    assert (told.smtp_host, told.smtp_port, told.security, told.smtp_ca_file) == ("127.0.0.1", 25, "tls", certificate)
    assert (told.smtp_password, told.public_url) == (secrets.mailbox_key, RUNNING.url)
    assert mailbox_url(secrets, here) == f"http://127.0.0.1:26/{secrets.mailbox_key}/"
    assert mailbox_url(secrets, RUNNING) == ""
    monkeypatch.setenv("ARAGORA_SMTP_HOST", "mail.example.com")
    monkeypatch.setenv("ARAGORA_PUBLIC_URL", "https://billing.example.com")
    told = NotifierSettings.model_validate(environment(secrets, RUNNING, "notifier"))
    assert (told.smtp_host, told.smtp_user, told.public_url) == ("mail.example.com", "", "https://billing.example.com")


def test_networks_of_webhooks_are_the_operators_and_those_of_this_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = credentials.read_or_make(tmp_path)
    here = replace(RUNNING, webhook_networks="127.0.0.0/8")
    monkeypatch.setenv("ARAGORA_WEBHOOK_ALLOWED_NETWORKS", "10.0.0.0/8")
    told = [NotifierSettings.model_validate(environment(secrets, one, "notifier")) for one in (RUNNING, here)]
    assert [[str(network) for network in one.networks] for one in told] == [
        ["10.0.0.0/8"], ["10.0.0.0/8", "127.0.0.0/8"],
    ]  # fmt: skip


def test_the_operators_account_is_as_they_say_else_made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
