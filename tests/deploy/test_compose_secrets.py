"""The secrets that the platform in containers gets at its first start."""

import hashlib
import subprocess
from pathlib import Path

from deploy.compose_file import DOCKER, SERVICES, asks_for, composition, told

from aragora.chassis.security import parse_service_keys
from auth.settings import Settings as AuthSettings
from notifier.settings import Settings as NotifierSettings


def make(file: Path) -> dict[str, str]:
    """Run the script; what the file says then."""
    subprocess.run(["sh", DOCKER / "secrets.sh", file], check=True, capture_output=True)
    return dict(line.split("=", 1) for line in file.read_text().splitlines())


def test_it_makes_whatever_the_platform_asks_for(tmp_path: Path):
    file = tmp_path / ".env"
    made = make(file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert asks_for(composition()) <= made.keys()
    secret = [value for name, value in made.items() if name not in ("ARAGORA_OPERATOR_EMAIL", "ARAGORA_SERVICE_KEYS")]
    assert len(set(secret)) == len(secret)
    assert all(len(value) >= 24 for value in secret)
    plain = [value for name, value in made.items() if name.startswith(("NATS_", "POSTGRES_"))]
    assert all(value.isalnum() and value[0].isalpha() for value in plain), "NATS would read another thing"


def test_services_can_use_them(tmp_path: Path):
    made = make(tmp_path / ".env")
    (key,) = parse_service_keys(made["ARAGORA_SERVICE_KEYS"])
    assert hashlib.sha256(made["ARAGORA_SERVICE_KEY"].encode()).hexdigest() in made["ARAGORA_SERVICE_KEYS"]
    assert key.scopes == {"usage.write", "usage.read", "operator"}
    assert len(made["ARAGORA_SERVICE_KEY"]) == len("svc_") + 43
    assert len(made["ARAGORA_JWT_SECRET"]) >= 32
    for settings, variable in ((AuthSettings, "AUTH_SEALING_KEYS"), (NotifierSettings, "NOTIFIER_SEALING_KEYS")):
        settings.model_validate({"DATABASE_URL": "postgresql://nowhere", "ARAGORA_SEALING_KEYS": made[variable]})
    assert made["AUTH_SEALING_KEYS"] != made["NOTIFIER_SEALING_KEYS"]


def test_what_is_there_stays_and_what_is_new_is_added(tmp_path: Path):
    file = tmp_path / ".env"
    first = make(file)
    assert make(file) == first
    kept = {"ARAGORA_JWT_SECRET": "chosen-by-a-person-of-32-letters-at-least", "ARAGORA_PORT": "9000"}
    file.write_text("\n".join(f"{name}={value}" for name, value in kept.items()))
    file.chmod(0o644)
    again = make(file)
    assert kept.items() <= again.items()
    assert again.keys() == first.keys() | kept.keys()
    assert file.stat().st_mode & 0o777 == 0o600


def test_the_operators_programs_are_known_to_every_service():
    assert all("ARAGORA_SERVICE_KEYS" in told(f"{service}-api") for service in SERVICES)
    assert not any("ARAGORA_SERVICE_KEY" in told(f"{service}-api") for service in SERVICES), "only its digest is told"
