import base64
import hmac
import json
import os
import stat

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as new_rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from aragora.billing import token_keys
from aragora.billing.jwt_auth import (
    JWTConfig,
    JWTConfigError,
    create_access_token,
    jwks,
    validate_access_token,
)
from aragora.billing.public_keys import thumbprint_of

SECRET = "0123456789abcdef0123456789abcdef"
SECRET_2 = "second-secret-second-secret-second-secret"
SECRET_3 = "third-secret-third-secret-third-secret-3"
ED25519, ED25519_2 = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
RSA = new_rsa(65537, 2048)
KEYS = {"EdDSA": ED25519, "RS256": RSA}


def pem(key, password=None):
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption).decode()


def public_pem(key):
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@pytest.fixture
def configured(monkeypatch):
    """Sets the variables of keys, and those not named to nothing."""

    def configure(**variables):
        for name in ("ALGORITHM", "SECRET", "PREVIOUS_SECRETS", "PRIVATE_KEY", "PUBLIC_KEYS"):
            monkeypatch.delenv(f"ARAGORA_JWT_{name}", raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(f"ARAGORA_JWT_{name}", value)

    return configure


@pytest.fixture
def after_a_while(monkeypatch):
    """Lets the time pass after which files are looked at again."""
    clock = {"now": 1_000.0}
    monkeypatch.setattr("aragora.billing.token_keys.time.monotonic", lambda: clock["now"])

    def pass_time(seconds=token_keys.LOOK_SECONDS):
        clock["now"] += seconds

    return pass_time


def new_token():
    return create_access_token("u", "e@example.com")


def document_of(configured, algorithm, key):
    configured(ALGORITHM=algorithm, PRIVATE_KEY=pem(key))
    return json.dumps(jwks())


# HS256


def test_a_secret_is_replaced_and_what_the_old_one_signed_is_good_until_dropped(configured):
    configured(SECRET=SECRET)
    old = new_token()
    configured(SECRET=SECRET_2, PREVIOUS_SECRETS=f" {SECRET_3}, {SECRET},")
    new = new_token()
    assert validate_access_token(old)
    assert validate_access_token(new)
    assert jwt.get_unverified_header(old)["kid"] != jwt.get_unverified_header(new)["kid"]
    configured(SECRET=SECRET_2)
    assert validate_access_token(new)
    assert validate_access_token(old) is None
    configured(SECRET=SECRET)
    assert validate_access_token(new) is None


def test_a_token_without_the_name_of_a_key_is_tried_with_all(configured):
    configured(SECRET=SECRET)
    claims = jwt.decode(new_token(), options={"verify_signature": False})
    older = [jwt.encode(claims, secret, algorithm="HS256") for secret in (SECRET, SECRET_2, SECRET_3)]
    configured(SECRET=SECRET_2, PREVIOUS_SECRETS=SECRET)
    for _ in range(2):
        assert [validate_access_token(token) is not None for token in older] == [True, True, False]


def test_the_name_of_a_secret_does_not_tell_it(configured):
    configured(SECRET=SECRET)
    kid = jwt.get_unverified_header(new_token())["kid"]
    assert len(kid) == 16
    assert set(kid) <= set("0123456789abcdef")
    assert jwks() == {"keys": []}
    assert SECRET not in repr(JWTConfig.from_environment())


# Key pairs


@pytest.mark.parametrize("algorithm", KEYS)
def test_who_has_the_private_key_signs_and_whoever_has_the_public_one_verifies(configured, algorithm):
    document = document_of(configured, algorithm, KEYS[algorithm])
    token = new_token()
    assert validate_access_token(token)
    assert jwt.get_unverified_header(token)["alg"] == algorithm
    configured(ALGORITHM=algorithm, PUBLIC_KEYS=document)
    assert validate_access_token(token)
    assert JWTConfig.from_environment().keys.signing is None
    with pytest.raises(JWTConfigError, match="ARAGORA_JWT_PRIVATE_KEY"):
        new_token()
    with pytest.raises(JWTConfigError, match="ARAGORA_JWT_PRIVATE_KEY"):
        JWTConfig.from_environment(signing=True)


@pytest.mark.parametrize("algorithm", KEYS)
def test_the_document_of_keys_holds_public_ones_under_their_thumbprints(configured, algorithm):
    (entry,) = json.loads(document_of(configured, algorithm, KEYS[algorithm]))["keys"]
    assert {"d", "p", "q", "k"}.isdisjoint(entry)
    assert (entry["alg"], entry["use"], entry["kid"]) == (
        algorithm, "sig", jwt.get_unverified_header(new_token())["kid"],
    )  # fmt: skip
    assert jwt.decode(new_token(), jwt.PyJWK(entry), algorithms=[algorithm], audience="aragora")["sub"] == "u"


def test_a_thumbprint_is_that_of_the_standard():
    # RFC 8037, appendix A.3
    key = jwt.PyJWK({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}, "EdDSA").key
    assert thumbprint_of(key) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


@pytest.mark.parametrize("algorithm", KEYS)
@pytest.mark.parametrize("secret_of", [public_pem, lambda key: public_pem(key).strip(), lambda _: json.dumps(jwks())])
def test_a_token_signed_with_the_public_keys_text_is_refused(configured, algorithm, secret_of):
    """The known attack: the public key is no secret, and HS256 would take its text for one."""
    document_of(configured, algorithm, KEYS[algorithm])
    good = new_token()
    claims = jwt.decode(good, options={"verify_signature": False})
    secret = secret_of(KEYS[algorithm]).encode()
    for headers in ({}, {"kid": jwt.get_unverified_header(good)["kid"]}):
        text = jwt.encode(claims, SECRET, algorithm="HS256", headers=headers).rpartition(".")[0]
        signature = base64.urlsafe_b64encode(hmac.digest(secret, text.encode(), "sha256")).rstrip(b"=").decode()
        assert validate_access_token(f"{text}.{signature}") is None


def test_a_token_of_another_algorithm_is_refused(configured):
    configured(SECRET=SECRET)
    shared = new_token()
    configured(ALGORITHM="RS256", PRIVATE_KEY=pem(RSA))
    signed_by_rsa = new_token()
    assert validate_access_token(shared) is None
    configured(ALGORITHM="EdDSA", PRIVATE_KEY=pem(ED25519))
    assert validate_access_token(signed_by_rsa) is None
    configured(SECRET=SECRET)
    assert validate_access_token(signed_by_rsa) is None
    assert validate_access_token(shared)


def test_a_key_may_be_written_on_one_line(configured):
    configured(ALGORITHM="EdDSA", PRIVATE_KEY=pem(ED25519).replace("\n", "\\n"))
    assert validate_access_token(new_token())


def test_public_keys_rotate_without_a_restart(configured, after_a_while, tmp_path):
    old_document = document_of(configured, "EdDSA", ED25519)
    old = new_token()
    new_document = document_of(configured, "EdDSA", ED25519_2)
    new = new_token()
    path = tmp_path / "jwks.json"
    path.write_text(old_document)
    configured(ALGORITHM="EdDSA", PUBLIC_KEYS=str(path))
    assert (validate_access_token(old) is not None, validate_access_token(new) is not None) == (True, False)

    both = {"keys": [*json.loads(old_document)["keys"], *json.loads(new_document)["keys"]]}
    path.write_text(json.dumps(both))
    assert validate_access_token(new) is None  # it has not been looked at yet
    after_a_while()
    assert (validate_access_token(old) is not None, validate_access_token(new) is not None) == (True, True)

    path.write_text(new_document)
    after_a_while()
    assert (validate_access_token(old) is not None, validate_access_token(new) is not None) == (False, True)


@pytest.mark.parametrize("broken", ["", "{", '{"keys": []}', None])
def test_a_file_that_breaks_later_changes_nothing_until_it_is_mended(
    configured, after_a_while, tmp_path, caplog, broken
):
    document = document_of(configured, "EdDSA", ED25519)
    token = new_token()
    path = tmp_path / "jwks.json"
    path.write_text(document)
    configured(ALGORITHM="EdDSA", PUBLIC_KEYS=str(path))
    assert validate_access_token(token)
    if broken is None:
        path.unlink()
    else:
        path.write_text(broken)
    after_a_while()
    assert validate_access_token(token)
    assert "ARAGORA_JWT_PUBLIC_KEYS" in caplog.text


def test_a_private_key_comes_from_a_file_too(configured, after_a_while, tmp_path):
    path = tmp_path / "key.pem"
    path.write_text(pem(ED25519))
    path.chmod(stat.S_IRUSR | stat.S_IWUSR)
    configured(ALGORITHM="EdDSA", PRIVATE_KEY=str(path))
    first = new_token()
    assert validate_access_token(first)
    path.write_text(pem(ED25519_2))
    after_a_while()
    assert validate_access_token(new_token())
    assert validate_access_token(first) is None


def test_files_are_not_looked_at_each_time(configured, after_a_while, tmp_path, monkeypatch):
    path = tmp_path / "key.pem"
    path.write_text(pem(ED25519))
    configured(ALGORITHM="EdDSA", PRIVATE_KEY=str(path))
    looks = []
    state_of = token_keys._state_of

    def counted(path):
        looks.append(path)
        return state_of(path)

    monkeypatch.setattr(token_keys, "_state_of", counted)
    token = new_token()
    looks.clear()
    for _ in range(50):
        validate_access_token(token)
    assert looks == []
    after_a_while()
    validate_access_token(token)
    assert looks == [path]


def test_a_secret_may_be_any_bytes(configured):
    configured(SECRET=os.fsdecode(b"\xff\xfe" * 16))
    assert validate_access_token(new_token())
