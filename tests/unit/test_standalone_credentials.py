import hashlib
import json
from pathlib import Path

import pytest

from aragora.chassis.sealing import MIN_KEY_BYTES
from aragora.chassis.security import find_service_key, parse_service_keys
from aragora.contracts.topology import ACCOUNTS
from standalone import credentials
from standalone.credentials import Credentials
from standalone.problems import DataDirUnusable


def test_they_are_made_once_for_their_owner_only(tmp_path: Path) -> None:
    made = credentials.read_or_make(tmp_path)
    path = credentials.path_of(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert set(made.bus) == {account.name for account in ACCOUNTS}
    assert credentials.read_or_make(tmp_path) == credentials.read(tmp_path) == made


def test_two_platforms_share_no_secret(tmp_path: Path) -> None:
    first, second = (secrets_of(credentials.read_or_make(tmp_path_of(tmp_path, name))) for name in "ab")
    assert first.isdisjoint(second)
    assert len(first) == 7 + len(ACCOUNTS) + len(credentials.SERVICES)


def secrets_of(made: Credentials) -> set[str]:
    single = {made.postgres_password, made.jwt_secret, made.service_key, made.sealing_key, made.operator_password}
    single |= {made.notifier_sealing_key, made.mailbox_key}
    return {*single, *made.bus.values(), *made.databases.values()}


def tmp_path_of(tmp_path: Path, name: str) -> Path:
    folder = tmp_path / name
    folder.mkdir()
    return folder


def test_an_open_file_is_closed_again(tmp_path: Path) -> None:
    credentials.read_or_make(tmp_path)
    credentials.path_of(tmp_path).chmod(0o644)
    credentials.read_or_make(tmp_path)
    assert credentials.path_of(tmp_path).stat().st_mode & 0o777 == 0o600


def test_a_new_account_gets_a_password_and_the_others_keep_theirs(tmp_path: Path) -> None:
    made = credentials.read_or_make(tmp_path)
    path = credentials.path_of(tmp_path)
    without = json.loads(path.read_text())
    del without["bus"]["publisher"]
    path.write_text(json.dumps(without))
    completed = credentials.read_or_make(tmp_path)
    assert completed.bus["publisher"] not in {"", made.bus["publisher"]}
    assert {**completed.bus, "publisher": ""} == {**made.bus, "publisher": ""}
    assert credentials.read(tmp_path) == completed


def test_the_file_of_a_version_without_billing_is_completed_and_nothing_else_changes(tmp_path: Path) -> None:
    made = credentials.read_or_make(tmp_path)
    path = credentials.path_of(tmp_path)
    earlier = json.loads(path.read_text())
    del earlier["bus"]["billing"], earlier["databases"]["billing"]
    path.write_text(json.dumps(earlier))
    completed = credentials.read_or_make(tmp_path)
    assert set(completed.databases) == set(credentials.SERVICES) == {"auth", "metering", "billing", "notifier"}
    assert completed.database_of("metering") == made.database_of("metering")
    assert completed.database_of("billing").name == "aragora_billing"
    assert completed.bus["billing"] != completed.bus["metering"] == made.bus["metering"]


def test_the_file_of_a_version_without_auth_can_be_read_and_is_completed_once(tmp_path: Path) -> None:
    made = credentials.read_or_make(tmp_path)
    path = credentials.path_of(tmp_path)
    earlier = json.loads(path.read_text())
    for names in ("bus", "databases"):
        del earlier[names]["auth"]
    del earlier["sealing_key"], earlier["operator_password"]
    path.write_text(json.dumps(earlier))
    assert credentials.read(tmp_path).service_key == made.service_key
    completed = credentials.read_or_make(tmp_path)
    assert len(completed.sealing_key) >= MIN_KEY_BYTES
    assert len(completed.operator_password) >= 20
    assert completed.database_of("auth").name == "aragora_auth"
    assert (completed.jwt_secret, completed.databases["billing"]) == (made.jwt_secret, made.databases["billing"])
    assert credentials.read_or_make(tmp_path) == completed


def test_the_file_of_a_version_without_the_notifier_is_completed_and_nothing_else_changes(tmp_path: Path) -> None:
    made = credentials.read_or_make(tmp_path)
    path = credentials.path_of(tmp_path)
    earlier = json.loads(path.read_text())
    for names in ("bus", "databases"):
        del earlier[names]["notifier"]
    del earlier["notifier_sealing_key"], earlier["mailbox_key"]
    path.write_text(json.dumps(earlier))
    completed = credentials.read_or_make(tmp_path)
    assert completed.database_of("notifier").name == "aragora_notifier"
    assert len(completed.notifier_sealing_key) >= MIN_KEY_BYTES
    assert completed.notifier_sealing_key != completed.sealing_key == made.sealing_key
    assert len(completed.mailbox_key) >= 32
    assert credentials.read_or_make(tmp_path) == completed


@pytest.mark.parametrize("text", ["", "{", "[]", '{"jwt_secret": "only"}'])
def test_a_damaged_file_is_refused_by_name_and_left_alone(tmp_path: Path, text: str) -> None:
    path = credentials.path_of(tmp_path)
    path.write_text(text)
    with pytest.raises(DataDirUnusable, match=r"credentials\.json is damaged"):
        credentials.read_or_make(tmp_path)
    assert path.read_text() == text


def test_the_services_know_the_operators_key_by_its_hash(tmp_path: Path) -> None:
    made = credentials.read_or_make(tmp_path)
    assert made.service_key not in made.service_keys()
    found = find_service_key(parse_service_keys(made.service_keys()), made.service_key)
    assert found is not None
    assert found.digest == hashlib.sha256(made.service_key.encode()).digest()
    assert found.scopes == {"operator", "usage.read", "usage.write"}
