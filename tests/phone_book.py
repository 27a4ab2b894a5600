"""Auth's answers on the bus about people and letters, for tests of the notifier alone; others have the real auth."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg

from aragora.contracts.contacts import READ_CONTACTS, Contact, Contacts, MemberRole, ReadContacts
from aragora.contracts.messages import READ_MESSAGE, Message, MessageKind, MessageVerdict, ReadMessage


@dataclass
class PhoneBook:
    """Who there is. `is_away`: nothing is answered, as when auth is down. `asked` counts the questions."""

    names: dict[str, str] = field(default_factory=dict)
    members: dict[str, dict[str, Contact]] = field(default_factory=dict)
    letters: dict[str, Message] = field(default_factory=dict)
    is_away: bool = False
    asked: int = 0
    told_at_once: int = 1000

    def add(
        self, org_id: str, user_id: str, role: MemberRole = "owner", *, email: str | None = None,
        name: str | None = "Ada Lovelace", verified: bool = True, org_name: str = "Ada's Engines",
    ) -> str:  # fmt: skip
        """Somebody belongs to an organization. Returns the address."""
        address = email or f"{user_id}@example.com"
        self.names.setdefault(org_id, org_name)
        contact = Contact(user_id=user_id, email=address, name=name, verified=verified, role=role)
        self.members.setdefault(org_id, {})[user_id] = contact
        return address

    def write(
        self, message_id: str, kind: MessageKind, email: str, *, org_name: str | None = None,
        expires_at: datetime | None = None,
    ) -> None:  # fmt: skip
        """A letter that is to be sent."""
        until = expires_at or datetime.now(UTC) + timedelta(hours=1)
        token = f"{message_id}.secret-of-this-letter"
        self.letters[message_id] = Message(kind=kind, email=email, token=token, org_name=org_name, expires_at=until)

    async def answer_on(self, bus: Client) -> None:
        """Answer until the connection is closed."""
        await bus.subscribe(READ_CONTACTS, cb=self._contacts)
        await bus.subscribe(READ_MESSAGE, cb=self._message)

    async def _contacts(self, question: Msg) -> None:
        self.asked += 1
        if self.is_away:
            await question.respond(b"")
            return
        asked = msgspec.json.decode(question.data, type=ReadContacts)
        if asked.org_id is not None:
            known = sorted(self.members.get(asked.org_id, {}).values(), key=lambda one: one.user_id)
            found = tuple(one for one in known if asked.after is None or one.user_id > asked.after)[: self.told_at_once]
            more = len(found) == self.told_at_once
            answer = Contacts(org_name=self.names.get(asked.org_id) if found else None, contacts=found, more=more)
        else:
            everybody = [one for members in self.members.values() for one in members.values()]
            answer = Contacts(contacts=tuple(one for one in everybody if one.user_id == asked.user_id)[:1])
        await question.respond(msgspec.json.encode(answer))

    async def _message(self, question: Msg) -> None:
        if self.is_away:
            await question.respond(b"")
            return
        found = self.letters.get(msgspec.json.decode(question.data, type=ReadMessage).message_id)
        await question.respond(msgspec.json.encode(MessageVerdict(message=found, refused=None if found else "unknown")))
