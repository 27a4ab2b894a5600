"""The core of the simulator: objects, one clock, what is due when, and the events that every change leaves.

It does no I/O and draws no random numbers: the same calls at the same moments leave the same world.
"""

import heapq
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from standalone.stripe_simulator.clock import Clock
from standalone.stripe_simulator.problems import invalid, missing
from standalone.stripe_simulator.shapes import API_VERSION, Thing, blank, copied

Due = Callable[["World", str], None]
"""What happens to the object with that id when its moment has come."""


@dataclass(slots=True)
class Rules:
    """What Stripe's dashboard would set."""

    finalization_delay_seconds: int = 3_600
    """How long a renewal's invoice stays a draft."""
    retry_days: tuple[int, ...] = (3, 5, 7)
    """Days after the first failed attempt on which payment is tried again."""
    after_last_failure: str = "past_due"
    """What the subscription becomes then: `past_due`, `unpaid` or `canceled`."""
    minimum_charge_cents: int = 50
    """A smaller sum is not charged; it is carried to the customer's balance."""


@dataclass(slots=True)
class Billed:
    """What was last billed for a subscription item, and for which time: a credit gives back the unused part of it."""

    amount: int
    start: int
    end: int


class World:
    """Everything that one account of Stripe holds."""

    def __init__(self, clock: Clock, *, seed: str = "", rules: Rules | None = None) -> None:
        """`seed` goes into every id, so that the objects of two worlds are never mistaken for one another."""
        self.clock = clock
        self.seed = seed
        self.rules = rules or Rules()
        self.account = f"acct_simulator{seed}"
        self.base_url = "http://simulator.invalid"
        self.tables: dict[str, dict[str, Thing]] = {}
        self.events: list[Thing] = []
        self.observers: list[Callable[[Thing], None]] = []
        self.request: Thing = {"id": None, "idempotency_key": None}
        self.secrets: dict[str, str] = {}
        """By webhook endpoint: the secret that signs what it is sent."""
        self.behaviours: dict[str, str] = {}
        """How a payment method's card behaves: a name of `cards.BEHAVIOURS`."""
        self.orders: dict[str, Thing] = {}
        """By Checkout session: what it sells, and what its subscription will be given."""
        self.billed: dict[str, Billed] = {}
        self.pending_changes: dict[str, Any] = {}
        """By subscription: the change that waits for its invoice to be paid."""
        self.payments_of: dict[str, list[str]] = {}
        """By invoice: its invoice payments, oldest first."""
        self.invoices_of: dict[str, list[str]] = {}
        """By subscription: its invoices, oldest first."""
        self.items_of: dict[str, list[str]] = {}
        """By customer: all its invoice items, oldest first."""
        self.first_attempts: dict[str, int] = {}
        """By invoice: when it was first tried; retries count from there."""
        self.usage: dict[tuple[str, str], list[tuple[int, str]]] = {}
        """By meter and customer: moments and values."""
        self._timers: dict[str, list[tuple[int, int, Due, str]]] = {}
        self.count = 0
        self._moment: int | None = None

    # Objects

    def new_id(self, prefix: str) -> str:
        """The next id; ids sort in the order in which they were given."""
        self.count += 1
        return f"{prefix}_1Sim{self.seed}{self.count:08d}"

    def new(self, kind: Any, prefix: str, /, **fields: Any) -> Thing:
        """Make an object of that class of the SDK and keep it."""
        thing = self.draft(kind, fields.pop("id", None) or self.new_id(prefix), **fields)
        self.table(thing["object"])[thing["id"]] = thing
        return thing

    def draft(self, kind: Any, object_id: str, /, **fields: Any) -> Thing:
        """An object of that class that nobody can ask for yet."""
        thing = blank(kind) | {"id": object_id, "object": kind.OBJECT_NAME}
        if "livemode" in kind.__annotations__:
            thing["livemode"] = False
        if "metadata" in kind.__annotations__:
            thing["metadata"] = {}
        return thing | fields

    def table(self, object_name: str) -> dict[str, Thing]:
        """All objects of a kind, by id, oldest first."""
        return self.tables.setdefault(object_name, {})

    def get(self, object_name: str, object_id: str, param: str = "id") -> Thing:
        """The object itself, to read and to change. Raises StripeProblem 404."""
        try:
            return self.table(object_name)[object_id]
        except KeyError:
            raise missing(object_name, object_id, param) from None

    def alive(self, object_name: str, object_id: str, param: str = "id") -> Thing:
        """As `get`, and a deleted object is as none."""
        thing = self.get(object_name, object_id, param)
        if thing.get("deleted"):
            raise missing(object_name, object_id, param)
        return thing

    def find(self, object_id: str) -> Thing | None:
        """The object of whatever kind, for `expand`."""
        return next((table[object_id] for table in self.tables.values() if object_id in table), None)

    def where(self, object_name: str, **fields: Any) -> list[Thing]:
        """The objects whose fields are these, oldest first."""
        return [
            thing for thing in self.table(object_name).values() if all(thing.get(k) == v for k, v in fields.items())
        ]

    def by_hand(self) -> None:
        """What happens next is no answer to a request of the API: somebody pressed a button, or a test told so."""
        self.run_due()
        self.request = {"id": None, "idempotency_key": None}

    # Time

    def time_of(self, thing: Thing | None = None) -> int:
        """Now, by the test clock of the object (or of its customer) where it has one."""
        clock_id = self.clock_of(thing)
        if clock_id:
            moment: int = self.get("test_helpers.test_clock", clock_id)["frozen_time"]
            return moment
        return self.clock.now() if self._moment is None else self._moment

    def clock_of(self, thing: Thing | None) -> str:
        """The id of the test clock that the object follows, or `""` for the simulator's own."""
        if thing is None:
            return ""
        if "test_clock" not in thing and isinstance(thing.get("customer"), str):
            thing = self.table("customer").get(thing["customer"], thing)
        return thing.get("test_clock") or ""

    def at(self, due: int, action: Due, thing: Thing) -> None:
        """Do that at the moment (Unix seconds) on the clock that the object follows.

        Whether it is still wanted then is for the action to find out: nothing is ever taken back.
        """
        self.count += 1
        timers = self._timers.setdefault(self.clock_of(thing), [])
        heapq.heappush(timers, (due, self.count, action, thing["id"]))

    def next_due(self) -> int | None:
        """When something happens next on the simulator's own clock."""
        timers = self._timers.get("")
        return timers[0][0] if timers else None

    def run_due(self) -> None:
        """Do what has fallen due on the simulator's own clock, each thing at its own moment."""
        if self._moment is None:
            self._run_until(self.clock.now())

    def advance(self, to: int) -> None:
        """Set the simulator's clock ahead, and do what falls due on the way, in order."""
        if to < self.clock.now():
            raise invalid(f"The clock is past {to} already, and time does not go back.")
        self._run_until(to)
        self.clock.set(to)

    def _run_until(self, to: int) -> None:
        for due, action, thing_id in self._taken("", to):
            self._moment = due
            try:
                action(self, thing_id)
            finally:
                self._moment = None

    def advance_test_clock(self, test_clock: Thing, to: int) -> None:
        """As `advance`, for one of Stripe's test clocks."""
        for due, action, thing_id in self._taken(test_clock["id"], to):
            test_clock["frozen_time"] = max(due, test_clock["frozen_time"])
            action(self, thing_id)
        test_clock["frozen_time"] = to

    def _taken(self, clock_id: str, to: int) -> Iterator[tuple[int, Due, str]]:
        timers = self._timers.get(clock_id, [])
        while timers and timers[0][0] <= to:
            due, _, action, thing_id = heapq.heappop(timers)
            yield due, action, thing_id
            timers = self._timers.get(clock_id, [])

    # Events

    def emit(self, event_type: str, thing: Thing, previous: Thing | None = None) -> None:
        """Record an event with the whole object as it is now."""
        body: Thing = {"object": copied(thing)}
        if previous is not None:
            body["previous_attributes"] = previous
        event: Thing = {
            "id": self.new_id("evt"),
            "object": "event",
            "account": None,
            "api_version": API_VERSION,
            "context": None,
            "created": self.time_of(thing),
            "data": body,
            "livemode": False,
            "pending_webhooks": len(self.table("webhook_endpoint")),
            "request": dict(self.request) if self._moment is None else {"id": None, "idempotency_key": None},
            "type": event_type,
        }
        del event["account"], event["context"]
        self.events.append(event)
        self.table("event")[event["id"]] = event
        for observer in self.observers:
            observer(event)

    @contextmanager
    def changing(self, thing: Thing, *event_types: str) -> Iterator[Thing]:
        """Change the object inside; the events follow with what its fields were before. No change, no event."""
        before = copied(thing)
        yield thing
        previous = difference(before, thing)
        if previous:
            for event_type in event_types:
                self.emit(event_type, thing, previous if event_type.endswith("updated") else None)


def difference(before: Thing, after: Thing) -> Thing:
    """What the fields that differ were before; only the differing parts of nested objects, lists whole."""
    previous: Thing = {}
    for name in before.keys() | after.keys():
        was, is_now = before.get(name), after.get(name)
        if was == is_now:
            continue
        nested = isinstance(was, dict) and isinstance(is_now, dict) and was.get("object") == is_now.get("object")
        previous[name] = difference(was, is_now) if nested and was and is_now else was
    return previous
