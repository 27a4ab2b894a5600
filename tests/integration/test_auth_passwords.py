"""Changing a password, and getting back in without it."""

from auth_platform import AuthPlatform, Person, any_email

from aragora.contracts.events import PasswordChanged, PasswordResetRequested

NEW = "a-much-better-password-77"


async def test_changing_the_password_ends_every_session_but_the_new_one(running_auth: AuthPlatform):
    person = await running_auth.register()
    other = await running_auth.sign_in(person)
    body = {"current_password": person.password, "new_password": NEW}
    begun = await running_auth.read("POST", "/api/auth/change-password", body, token=person.access_token)
    for token in (person.access_token, other["access_token"]):
        assert (await running_auth.ask("GET", "/api/auth/me", token=token)).status_code == 401
    for token in (person.refresh_token, other["refresh_token"]):
        assert (await running_auth.ask("POST", "/api/auth/refresh", {"refresh_token": token})).status_code == 401
    assert (await running_auth.ask("GET", "/api/auth/me", token=begun["access_token"])).status_code == 200
    assert (await running_auth.hears(PasswordChanged, user_id=person.user_id)).how == "changed"
    old = await running_auth.ask("POST", "/api/auth/login", {"email": person.email, "password": person.password})
    assert old.status_code == 401
    person.password = NEW
    await running_auth.sign_in(person)


async def test_the_current_password_must_be_right_and_the_new_one_strong(running_auth: AuthPlatform):
    person = await running_auth.register()

    async def change(current: str, new: str):
        body = {"current_password": current, "new_password": new}
        return await running_auth.ask("POST", "/api/auth/change-password", body, token=person.access_token)

    assert (await change("wrong-password", NEW)).status_code == 401
    weak = await change(person.password, "qwerty12345")
    assert (weak.status_code, weak.json()["errors"][0]["field"]) == (422, "new_password")
    assert (await running_auth.ask("GET", "/api/auth/me", token=person.access_token)).status_code == 200


async def ask_for_letter(auth: AuthPlatform, person: Person) -> str:
    answer = await auth.ask("POST", "/api/auth/forgot-password", {"email": person.email})
    assert answer.status_code == 202
    return await auth.letter(person.email, "reset_password")


async def test_a_forgotten_password_is_set_anew_once(running_auth: AuthPlatform):
    person = await running_auth.register()
    for _ in range(5):
        await running_auth.ask("POST", "/api/auth/login", {"email": person.email, "password": "wrong-wrong"})
    letter = await ask_for_letter(running_auth, person)
    await running_auth.hears(PasswordResetRequested, user_id=person.user_id)
    weak = await running_auth.ask("POST", "/api/auth/reset-password", {"token": letter, "password": "12345678"})
    assert (weak.status_code, weak.json()["errors"][0]["field"]) == (422, "password")
    await running_auth.read("POST", "/api/auth/reset-password", {"token": letter, "password": NEW})
    assert (await running_auth.ask("GET", "/api/auth/me", token=person.access_token)).status_code == 401
    again = await running_auth.ask("POST", "/api/auth/reset-password", {"token": letter, "password": NEW + "2"})
    assert (again.status_code, again.json()["errors"][0]["field"]) == (422, "token")
    person.password = NEW
    signed_in = await running_auth.sign_in(person)  # the account is not locked any more
    assert signed_in["user"]["email_verified"]


async def test_the_answer_is_the_same_for_an_address_without_an_account(running_auth: AuthPlatform):
    person = await running_auth.register()
    answers = [
        await running_auth.ask("POST", "/api/auth/forgot-password", {"email": email})
        for email in (person.email, any_email())
    ]
    assert answers[0].status_code == answers[1].status_code == 202
    assert answers[0].json() == answers[1].json()


async def test_one_letter_a_minute(running_auth: AuthPlatform):
    person, later = await running_auth.register(), await running_auth.register()
    for _ in range(3):
        await running_auth.ask("POST", "/api/auth/forgot-password", {"email": person.email})
    await ask_for_letter(running_auth, later)  # written after all those before
    rows = await running_auth.query(
        "SELECT 1 AS one FROM messages WHERE email = $1 AND kind = 'reset_password'", person.email
    )
    assert len(rows) == 1


async def test_a_letter_expires(running_auth: AuthPlatform):
    person = await running_auth.register()
    letter = await ask_for_letter(running_auth, person)
    await running_auth.query("UPDATE messages SET expires_at = now() WHERE email = $1", person.email)
    answer = await running_auth.ask("POST", "/api/auth/reset-password", {"token": letter, "password": NEW})
    assert answer.status_code == 422
