"""The passwords and keys of a standalone platform: made at the first start, kept in one file of mode 0600."""

import hashlib
import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from aragora.contracts.keys import OPERATOR_SCOPES
from aragora.contracts.topology import ACCOUNTS
from standalone.postgres import Database
from standalone.problems import DataDirUnusable

FILE_NAME = "credentials.json"
SERVICES = ("auth", "metering", "billing", "notifier")
"""The services. Each owns a database, and has a user of the same name on the bus."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Everything secret. `databases` and `bus` are passwords by service and by account of the bus."""

    postgres_password: str
    databases: dict[str, str]
    bus: dict[str, str]
    jwt_secret: str
    service_key: str
    """The operator's key, which may do everything over HTTP."""
    sealing_key: str = ""
    """With this auth seals what it keeps. Empty in a file of an earlier version, until its next start."""
    operator_password: str = ""
    """What the operator's account is made with; they may have chosen another since. Empty as `sealing_key` is."""
    notifier_sealing_key: str = ""
    """With this the notifier seals what it keeps; with auth's it could sign letters. Empty as `sealing_key` is."""
    mailbox_key: str = ""
    """Of the local mailbox: for who leaves letters there, and for who reads them. Empty as `sealing_key` is."""

    def database_of(self, service: str) -> Database:
        """The database that a service owns."""
        return Database(f"aragora_{service}", self.databases[service])

    def service_keys(self) -> str:
        """The operator's key as an entry of ARAGORA_SERVICE_KEYS: hashed, with every scope."""
        digest = hashlib.sha256(self.service_key.encode()).hexdigest()
        return f"operator:{digest}:{'+'.join(sorted(OPERATOR_SCOPES))}"


def path_of(data_dir: Path) -> Path:
    """Where a data directory keeps its credentials."""
    return data_dir / FILE_NAME


def read(data_dir: Path) -> Credentials:
    """The credentials of a data directory.

    Raises:
        FileNotFoundError: there are none yet.
        DataDirUnusable: the file cannot be read or is not what was written.
    """
    path = path_of(data_dir)
    try:
        return Credentials(**json.loads(path.read_text()))
    except PermissionError as error:
        raise DataDirUnusable(f"{path} cannot be read: start as the user who owns it, or choose --data-dir.") from error
    except (ValueError, TypeError) as error:
        raise DataDirUnusable(
            f"{path} is damaged ({error}). Restore it from a backup: it holds the passwords."
        ) from error


def read_or_make(data_dir: Path) -> Credentials:
    """The credentials of a data directory, made if there are none, and completed if a service or account is new."""
    try:
        known = asdict(read(data_dir))
    except FileNotFoundError:
        known = {
            "postgres_password": secrets.token_urlsafe(24),
            "databases": {},
            "bus": {},
            "jwt_secret": secrets.token_urlsafe(48),
            "service_key": f"svc_{secrets.token_urlsafe(32)}",
        }
    before = json.dumps(known)
    for names, passwords in ((SERVICES, known["databases"]), ([account.name for account in ACCOUNTS], known["bus"])):
        for name in names:
            passwords.setdefault(name, secrets.token_urlsafe(24))
    for name in ("sealing_key", "notifier_sealing_key"):
        known[name] = known.get(name) or secrets.token_hex(32)
    for name in ("operator_password", "mailbox_key"):
        known[name] = known.get(name) or secrets.token_urlsafe(24)
    if json.dumps(known) != before or not path_of(data_dir).exists():
        _write(path_of(data_dir), json.dumps(known, indent=2) + "\n")
    path_of(data_dir).chmod(0o600)
    return Credentials(**known)


def _write(path: Path, text: str) -> None:
    """Whole or not at all, and readable by its owner only from the first byte on."""
    unfinished = path.with_name(path.name + ".new")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
