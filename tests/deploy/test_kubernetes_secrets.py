"""overlays/dev/secrets.sh makes secrets that everybody can use, once."""

import hashlib
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from deploy.kustomization import KUBERNETES, SERVICES

from aragora.billing.token_keys import MIN_SECRET_BYTES
from aragora.chassis.sealing import Sealer
from aragora.chassis.security import parse_service_keys

SCRIPT = KUBERNETES / "overlays/dev/secrets.sh"


def run(script: Path) -> None:
    subprocess.run(["sh", str(script)], check=True, capture_output=True)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """The folder that the script made, beside a copy of itself."""
    run(Path(shutil.copy(SCRIPT, tmp_path)))
    return tmp_path / "secrets"


def values(path: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in path.read_text().splitlines())


def test_nobody_else_reads_them(made: Path):
    assert made.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in made.iterdir()} == {0o600}


def test_a_second_time_it_keeps_what_is_there_and_adds_what_is_not(made: Path):
    before = {path.name: path.read_text() for path in made.iterdir()}
    (made / "billing.env").unlink()
    run(made.parent / SCRIPT.name)
    after = {path.name: path.read_text() for path in made.iterdir()}
    assert after.keys() == before.keys()
    assert [name for name in before if after[name] != before[name]] == ["billing.env"]


def test_passwords_stay_what_they_are_in_a_url_and_in_nats(made: Path):
    passwords = [
        value
        for path in made.glob("*.env")
        for key, value in values(path).items()
        if "password" in key or key == "jetstream-key"
    ]
    assert len(passwords) == len(set(passwords)) == 14
    assert all(re.fullmatch("p[0-9a-f]{64}", each) for each in passwords)
    for service in SERVICES:
        database = values(made / f"{service}-database.env")
        url = urlsplit(database["url"])
        assert (url.username, url.password) == (database["username"], database["password"])
        assert url.path == f"/{database['username']}" == f"/aragora_{service}"


def test_services_take_them(made: Path):
    platform = values(made / "platform.env")
    assert len(platform["jwt-secret"]) >= MIN_SECRET_BYTES
    sealing = {values(made / f"{service}.env")["sealing-keys"] for service in ("auth", "notifier")}
    assert len(sealing) == 2
    for keys in sealing:
        Sealer(keys, "auth")
    (key,) = parse_service_keys(platform["service-keys"])
    presented = (made / "operator-key").read_text().strip()
    assert re.fullmatch(r"svc_[\w-]{43}", presented)
    assert hashlib.sha256(presented.encode()).hexdigest() in platform["service-keys"]
    assert "operator" in key.scopes
