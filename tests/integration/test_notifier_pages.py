"""The pages that mail links to: unsubscribing, and what letters are for."""

import re

import httpx
import pytest
from mail_server import text_of
from mailing_world import MailingWorld, limit, unpriced

HTML = {"Accept": "text/html"}


def path_of(link: str) -> str:
    return httpx.URL(link.strip("<>")).raw_path.decode()


async def choices(office: MailingWorld, org: str) -> dict[str, str | None]:
    rows = await office.world.rows("SELECT kind, email FROM notification_preferences WHERE org_id = $1", org)
    return {row["kind"]: row["email"] for row in rows}


def assert_safe(page: httpx.Response) -> None:
    policy = page.headers["Content-Security-Policy"]
    (nonce,) = set(re.findall(r"'nonce-([^']+)'", policy))
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert page.headers["Cache-Control"] == "no-store"
    assert page.headers["Referrer-Policy"] == "no-referrer"
    assert "noindex" in page.headers["X-Robots-Tag"]
    assert set(re.findall(r"<(?:script|style)([^>]*)>", page.text)) == {f' nonce="{nonce}"'}
    assert not re.search(r"\son\w+=|\sstyle=|(?:src|href)=\"(?!http://127\.0\.0\.1:8000/)", page.text)


async def test_one_click_unsubscribes_and_can_be_undone(office, org):
    client, address = office.world.client, office.world.book.add(org, "u1")
    await office.hear(limit(80), org)
    await office.hear(limit(80, meter="api_calls"), org)
    await office.send()
    mails = await office.server.has(address, 2)
    link = path_of(mails[0]["List-Unsubscribe"])
    assert mails[0]["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert link in text_of(mails[0])

    asked = await client.get(link, headers=HTML)
    assert_safe(asked)
    assert "80, 90 or 100 % of a limit are used" in asked.text
    assert await choices(office, org) == {}, "scanners open every link"

    await office.hear(limit(90), org)
    body, headers = "List-Unsubscribe=One-Click", {"Content-Type": "application/x-www-form-urlencoded"}
    for _ in range(2):
        ended = await client.post(link, content=body, headers=headers)
        assert ended.status_code == 200
    assert_safe(ended)
    assert await choices(office, org) == {"limit.reached": "off"}
    await office.hear(limit(100), org)
    await office.send()
    await office.server.has(address, 2)

    (action,) = re.findall(r'action="([^"]+)"', ended.text)
    undone = await client.post(str(httpx.URL(f"http://notifier{link}").join(action.replace("&amp;", "&"))))
    assert undone.status_code == 200
    assert_safe(undone)
    assert await choices(office, org) == {"limit.reached": "at_once"}
    await office.hear(limit(100, meter="tokens"), org)
    await office.send()
    await office.server.has(address, 3)


async def test_a_digest_ends_with_all_that_comes_with_it(office, org):
    client, address = office.world.client, office.world.book.add(org, "u1")
    await office.world.pool.execute(
        "INSERT INTO notification_preferences (org_id, user_id, kind, email, changed_at)"
        " VALUES ($1, 'u1', 'limit.reached', 'digest', now()), ($1, 'u1', 'credit.granted', 'at_once', now())",
        org,
    )
    await office.hear(unpriced("one"), org)
    office.pass_time(days=1)
    await office.send()
    (mail,) = await office.server.has(address)
    link = path_of(mail["List-Unsubscribe"])
    ended = await client.post(link)
    off = {kind for kind, email in (await choices(office, org)).items() if email == "off"}
    assert off == {"limit.reached", "usage.unpriced", "payment.succeeded"}
    (action,) = re.findall(r'action="([^"]+)"', ended.text)
    await client.post(str(httpx.URL(f"http://notifier{link}").join(action.replace("&amp;", "&"))))
    after = await choices(office, org)
    assert {kind for kind, email in after.items() if email == "digest"} == off
    assert after["credit.granted"] == "at_once"


async def test_a_link_that_was_tampered_with_does_nothing(office, org):
    address = office.world.book.add(org, "u1")
    await office.hear(limit(), org)
    await office.send()
    (mail,) = await office.server.has(address)
    link = path_of(mail["List-Unsubscribe"])
    folder, _, secret = link.rpartition("/")
    written, _, signature = secret.partition(".")
    for wrong in (f"{written}.{signature[::-1]}", f"{written[::-1]}.{signature}", written, "x", "%00", "a" * 500):
        for method in ("GET", "POST"):
            answer = await office.world.client.request(method, f"{folder}/{wrong}")
            assert answer.status_code == 404
            assert answer.headers["Content-Type"] == "application/problem+json"
    page = await office.world.client.get(f"{folder}/x", headers=HTML)
    assert page.status_code == 404
    assert "This link is not complete" in page.text
    assert_safe(page)
    undo = await office.world.client.post(f"{link}/undo", params={"kind": ["payment.failed", "usage.unpriced"]})
    assert undo.status_code == 200
    assert await choices(office, org) == {}, "a link speaks for one kind"


@pytest.mark.parametrize("letter", ["verify-email", "reset-password", "invitation"])
async def test_a_letters_page_is_the_same_for_everybody(office, letter):
    pages = [await office.world.client.get(f"/letters/{letter}", headers=HTML) for _ in range(2)]
    for page in pages:
        assert page.status_code == 200
        assert_safe(page)
    first, second = (re.sub(r'nonce="[^"]+"', "", page.text) for page in pages)
    assert first == second
    assert pages[0].headers["Content-Security-Policy"] != pages[1].headers["Content-Security-Policy"]


async def test_there_are_no_other_letters(office):
    assert (await office.world.client.get("/letters/anything")).status_code == 422
