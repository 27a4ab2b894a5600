"""The second factor: six digits, or a recovery code; each good once."""

import time

import pyotp
from auth_platform import AuthPlatform, Person

from aragora.contracts.events import SecondFactorChanged


def code_of(secret: str, steps: int = 1) -> str:
    """The code of the time step that comes: good now, and also if that one has begun when it is looked at."""
    return pyotp.TOTP(secret).generate_otp(int(time.time()) // 30 + steps)


async def switch_on(auth: AuthPlatform) -> tuple[Person, str, list[str]]:
    person = await auth.register()
    token = person.access_token
    wanted = await auth.read("POST", "/api/auth/2fa/setup", {"password": person.password}, token=token)
    assert wanted["otpauth_url"].startswith("otpauth://totp/Aragora")
    secret = wanted["secret"]
    body = {"code": code_of(secret, 0)}
    codes = (await auth.read("POST", "/api/auth/2fa/enable", body, token=token))["recovery_codes"]
    return person, secret, codes


async def login(auth: AuthPlatform, person: Person, **body: str):
    return await auth.ask("POST", "/api/auth/login", {"email": person.email, "password": person.password} | body)


async def test_signing_in_needs_a_code_and_each_is_good_once(running_auth: AuthPlatform):
    person, secret, _ = await switch_on(running_auth)
    assert (await running_auth.hears(SecondFactorChanged, user_id=person.user_id)).enabled
    missing = await login(running_auth, person)
    assert missing.status_code == 401
    assert missing.json()["errors"][0]["field"] == "code"
    code = code_of(secret)
    assert (await login(running_auth, person, code="000000" if code != "000000" else "000001")).status_code == 401
    assert (await login(running_auth, person, code=code)).status_code == 200
    assert (await login(running_auth, person, code=code)).status_code == 401
    me = await running_auth.read("GET", "/api/auth/me", token=person.access_token)
    assert me["user"]["second_factor"]


async def test_recovery_codes(running_auth: AuthPlatform):
    person, secret, codes = await switch_on(running_auth)
    assert len(set(codes)) == 10
    assert (await login(running_auth, person, code=codes[0].upper().replace("-", " "))).status_code == 200
    assert (await login(running_auth, person, code=codes[0])).status_code == 401
    body = {"password": person.password, "code": code_of(secret)}
    renewed = await running_auth.read("POST", "/api/auth/2fa/recovery-codes", body, token=person.access_token)
    assert (await login(running_auth, person, code=codes[1])).status_code == 401
    assert (await login(running_auth, person, code=renewed["recovery_codes"][0])).status_code == 200


async def test_it_is_switched_off_with_password_and_code(running_auth: AuthPlatform):
    person, secret, _ = await switch_on(running_auth)
    token = person.access_token
    assert (
        await running_auth.ask("POST", "/api/auth/2fa/disable", {"password": person.password}, token=token)
    ).status_code == 401
    body = {"password": person.password, "code": code_of(secret)}
    await running_auth.read("POST", "/api/auth/2fa/disable", body, token=token)
    assert (await login(running_auth, person)).status_code == 200


async def test_it_is_not_on_before_a_code_was_shown(running_auth: AuthPlatform):
    person = await running_auth.register()
    token = person.access_token
    not_yet = await running_auth.ask("POST", "/api/auth/2fa/enable", {"code": "123456"}, token=token)
    assert not_yet.status_code == 409
    secret = (await running_auth.read("POST", "/api/auth/2fa/setup", {"password": person.password}, token=token))[
        "secret"
    ]
    wrong = "000000" if code_of(secret) != "000000" else "111111"
    answer = await running_auth.ask("POST", "/api/auth/2fa/enable", {"code": wrong}, token=token)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "code")
    assert (await login(running_auth, person)).status_code == 200


async def test_a_second_set_up_is_refused_while_it_is_on(running_auth: AuthPlatform):
    person, secret, _ = await switch_on(running_auth)
    body = {"password": person.password, "code": code_of(secret)}
    answer = await running_auth.ask("POST", "/api/auth/2fa/setup", body, token=person.access_token)
    assert answer.status_code == 409


async def test_the_secret_is_not_readable_in_the_database(running_auth: AuthPlatform):
    person, secret, codes = await switch_on(running_auth)
    (row,) = await running_auth.query("SELECT totp_secret FROM users WHERE user_id = $1", person.user_id)
    assert secret.encode() not in row["totp_secret"]
    kept = await running_auth.query("SELECT digest FROM recovery_codes WHERE user_id = $1", person.user_id)
    assert codes[0].encode() not in b"".join(one["digest"] for one in kept)


async def test_wrong_codes_lock_like_wrong_passwords(running_auth: AuthPlatform):
    person, secret, _ = await switch_on(running_auth)
    wrong = "000000" if code_of(secret) != "000000" else "111111"
    statuses = [(await login(running_auth, person, code=wrong)).status_code for _ in range(6)]
    assert statuses == [401] * 5 + [429]


async def test_an_operator_switches_a_lost_one_off(running_auth: AuthPlatform):
    person, _, _ = await switch_on(running_auth)
    find = ("POST", "/api/auth/users/find", {"email": person.email.upper()})
    assert (await running_auth.ask(*find, token=person.access_token)).status_code == 403
    found = await running_auth.read(*find, token=running_auth.operator_key)
    assert (found["user"]["user_id"], found["user"]["second_factor"]) == (person.user_id, True)
    nobody = await running_auth.ask("POST", find[1], {"email": "nobody@example.com"}, token=running_auth.operator_key)
    assert nobody.status_code == 404
    path = f"/api/auth/users/{person.user_id}/disable-2fa"
    assert (await running_auth.ask("POST", path, token=person.access_token)).status_code == 403
    await running_auth.read("POST", path, token=running_auth.operator_key)
    assert (await running_auth.ask("GET", "/api/auth/me", token=person.access_token)).status_code == 401
    assert (await login(running_auth, person)).status_code == 200
