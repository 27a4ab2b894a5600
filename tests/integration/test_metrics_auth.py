"""What auth's processes say about themselves, after each thing has happened once."""

import json

from auth_platform import AuthPlatform
from metrics_said import Said, scrape, wrong_in
from servers import eventually

from aragora.contracts.events import AccountLocked, TokenRevoked
from aragora.contracts.topology import VERIFY_KEY


async def test_each_thing_is_counted(running_auth: AuthPlatform):
    auth = running_auth
    url, worker_url = (
        f"http://127.0.0.1:{process._program.env[variable]}"
        for process, variable in ((auth.api, "ARAGORA_PORT"), (auth.worker, "ARAGORA_WORKER_PORT"))
    )
    before = await scrape(url)
    person = await auth.register()
    await auth.sign_in(person)
    for _ in range(5):
        wrong = {"email": person.email, "password": "not-the-password"}
        assert (await auth.ask("POST", "/api/auth/login", wrong)).status_code == 401
    assert (await auth.ask("POST", "/api/auth/login", wrong)).status_code == 429
    await auth.hears(AccountLocked, user_id=person.user_id)
    refresh = {"refresh_token": person.refresh_token}
    assert (await auth.ask("POST", "/api/auth/refresh", refresh)).status_code == 200
    await auth.query(
        "UPDATE sessions SET rotated_at = rotated_at - interval '1 hour' WHERE user_id = $1", person.user_id
    )
    assert (await auth.ask("POST", "/api/auth/refresh", refresh)).status_code == 401
    await auth.hears(TokenRevoked, user_id=person.user_id)
    await auth.bus.request(VERIFY_KEY, json.dumps({"digest": "00" * 32}).encode(), timeout=5)

    said = await scrape(url)

    def grown(name: str, **labels: str) -> float:
        return said.of(name, **labels) - before.of(name, **labels)

    signed_in = {value: grown("auth_sign_ins_total", outcome=value) for value in ("succeeded", "refused", "locked")}
    assert signed_in == {"succeeded": 1, "refused": 5, "locked": 1}
    assert grown("auth_refresh_reused_total") == 1
    assert grown("auth_key_questions_total", outcome="answered") == 1
    assert said.has("auth_key_questions_total")

    async def both_know() -> list[Said]:
        both = [await scrape(one) for one in (url, worker_url)]
        published = [
            sum(one.of("relay_published_events_total", event=name) for one in both)
            for name in ("AccountLocked", "TokenRevoked")
        ]
        read = both[1].of("reading_succeeded_timestamp_seconds", component="auth", reading="bus")
        return both if all(published) and read else []

    api, worker = await eventually(both_know)
    for one in (api, worker):
        assert wrong_in(one) == []
        assert one.of("build_info", component="auth") == 1
        assert one.of("bus_connected", component="auth") == 1
    assert (api.has("outbox_events"), worker.has("outbox_events")) == (False, True)
    assert worker.has("dead_letters_open")
    assert worker.has("bus_consumer_pending_messages")
