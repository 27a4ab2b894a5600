"""From an event on the bus to the mailbox, by the whole worker: once each, over TLS, to whom it concerns."""

import json
from datetime import timedelta
from importlib.resources import files

import servers
from mail_server import html_of, mail_server, text_of
from mailing_world import limit
from notifier_world import notifier_world

from aragora.contracts import events
from aragora.contracts.events import NotificationDelivered, PaymentFailed
from aragora.contracts.ids import new_id

EXAMPLE = files("aragora.contracts").joinpath("examples/aragora.billing.PaymentFailed.v1.json")


async def test_what_people_must_know_arrives_once(postgres_server, notifier_template, nats_server, org):
    async with (
        servers.scratch_dir() as folder,
        mail_server(folder, "tls") as server,
        notifier_world(postgres_server, notifier_template, nats_server, **server.settings) as world,
    ):
        owner = world.book.add(org, "u1", "owner", org_name="Engines & <Co>")
        member = world.book.add(org, "u2", "member")
        for count, percent in enumerate((80, 90, 100), 1):
            event_id = new_id()
            for _ in range(2):
                await world.tell(limit(percent), org, event_id=event_id)
            mails = await server.has(member, count)
            assert mails[-1]["Subject"].endswith("· Engines & <Co>")
            assert f"{percent} of 100 are used" in text_of(mails[-1])
            assert "Engines &amp; &lt;Co&gt;" in html_of(mails[-1])
        failed = PaymentFailed.model_validate(json.loads(EXAMPLE.read_text())["data"])
        await world.tell(failed.model_copy(update={"grace_ends_at": world.clock() + timedelta(days=9)}), org)
        mails = await server.has(owner, 4)
        assert "did not go through" in mails[-1]["Subject"]
        await servers.eventually(lambda: len(world.heard_of(org, NotificationDelivered)) == 7)
        assert len(server.to(member)) == 3, "payments are for those who look after the organization"
        world.book.write("m1", "invitation", "new@example.com", org_name="Engines & <Co>")
        expires_at = world.clock() + timedelta(days=7)
        invited = events.MemberInvited(invitation_id="m1", role="member", invited_by="u1", expires_at=expires_at)
        await world.tell(invited, org)
        (letter,) = await server.has("new@example.com")
        assert letter["Subject"] == "You are invited to Engines & <Co> on Aragora"
        assert all(server.were_protected)
