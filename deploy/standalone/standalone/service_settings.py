"""What each service of the platform is told, as environment variables; of secrets, only its own."""

import os

from standalone import stripe_settings
from standalone.credentials import Credentials
from standalone.datadir import Running

OPERATOR_EMAIL = "operator@aragora.local"
SMTP_USER = "notifier"
"""As whom the notifier leaves its letters in the local mailbox."""
SECRETS_OF = {
    "auth": (
        "ARAGORA_SEALING_KEYS", "ARAGORA_OPERATOR_EMAIL", "ARAGORA_OPERATOR_PASSWORD", "ARAGORA_JWT_PRIVATE_KEY",
    ),
    "metering": (),
    "billing": stripe_settings.SECRETS,
    "notifier": (
        "ARAGORA_SEALING_KEYS", "ARAGORA_SMTP_PASSWORD", "ARAGORA_NOTIFICATION_WEBHOOK",
        "ARAGORA_NOTIFICATION_WEBHOOK_SECRET",
    ),
}  # fmt: skip
"""Variables that no other service is told: with auth's one could sign in as anybody."""
_SECRETS = {name for names in SECRETS_OF.values() for name in names}


def environment(
    secrets: Credentials, running: Running, service: str = "metering", *, account: str | None = None
) -> dict[str, str]:
    """The settings of a service, as environment variables: its own database, its own user of the bus (or another one).

    What the operator set stays.
    """
    database = secrets.database_of(service)
    user = account or service
    keys = [given for given in (os.environ.get("ARAGORA_SERVICE_KEYS", ""),) if given]
    of_others = dict.fromkeys(sorted(_SECRETS.difference(SECRETS_OF[service])), "")
    return of_others | _own(secrets, running, service) | {
        "DATABASE_URL": f"postgresql://{database.name}:{database.password}@127.0.0.1:{running.postgres_port}/{database.name}",
        "NATS_URL": f"nats://127.0.0.1:{running.nats_port}",
        "NATS_USER": user,
        "NATS_PASSWORD": secrets.bus[user],
        "ARAGORA_JWT_SECRET": os.environ.get("ARAGORA_JWT_SECRET") or secrets.jwt_secret,
        "ARAGORA_SERVICE_KEYS": ",".join([*keys, secrets.service_keys()]),
        "ARAGORA_HOST": running.host,
        "ARAGORA_PORT": str(running.port),
    }  # fmt: skip


def _own(secrets: Credentials, running: Running, service: str) -> dict[str, str]:
    """What no other service is told."""
    match service:
        case "auth":
            email, password = operator_account(secrets)
            return {
                "ARAGORA_SEALING_KEYS": os.environ.get("ARAGORA_SEALING_KEYS") or secrets.sealing_key,
                "ARAGORA_OPERATOR_EMAIL": email,
                "ARAGORA_OPERATOR_PASSWORD": password,
            }
        case "billing":
            return running.stripe
        case "notifier":
            networks = (os.environ.get("ARAGORA_WEBHOOK_ALLOWED_NETWORKS", ""), running.webhook_networks)
            return {
                "ARAGORA_SEALING_KEYS": os.environ.get("ARAGORA_SEALING_KEYS") or secrets.notifier_sealing_key,
                "ARAGORA_PUBLIC_URL": os.environ.get("ARAGORA_PUBLIC_URL") or running.url,
                "ARAGORA_WEBHOOK_ALLOWED_NETWORKS": ",".join(filter(None, networks)),
                **_of_mailbox(secrets, running),
            }
        case _:
            return {}


def _of_mailbox(secrets: Credentials, running: Running) -> dict[str, str]:
    """With which the notifier leaves its letters in the local mailbox; nothing where there is none."""
    if running.smtp_port is None:
        return {}
    return {
        "ARAGORA_SMTP_HOST": "127.0.0.1",
        "ARAGORA_SMTP_PORT": str(running.smtp_port),
        "ARAGORA_SMTP_USER": SMTP_USER,
        "ARAGORA_SMTP_PASSWORD": secrets.mailbox_key,
        "ARAGORA_SMTP_SECURITY": "tls",
        "ARAGORA_SMTP_CA_FILE": running.smtp_ca_file,
    }


def mailbox_url(secrets: Credentials, running: Running) -> str:
    """Where the local mailbox is read, with the key that opens it; empty where there is none."""
    return f"http://127.0.0.1:{running.mailbox_port}/{secrets.mailbox_key}/" if running.mailbox_port else ""


def operator_account(secrets: Credentials) -> tuple[str, str]:
    """E-mail address and password with which the operator's account is made, if there is no account of that address."""
    email = os.environ.get("ARAGORA_OPERATOR_EMAIL") or OPERATOR_EMAIL
    return email, os.environ.get("ARAGORA_OPERATOR_PASSWORD") or secrets.operator_password
