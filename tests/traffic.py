"""What programs and people ask of a platform while something happens to it, each until it is answered, and what they
were promised. `promises.py` says whether it was kept.
"""

import asyncio
import random
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

import httpx
from auth_platform import PASSWORD, any_email
from one_service import ALL_SCOPES, bearer
from servers import eventually

from aragora.contracts.ids import new_id

DEBATE = {"event_type": "debate", "provider": "anthropic", "model": "claude-sonnet-4", "tokens_in": 10, "tokens_out": 5}
PLANS = ("free", "starter", "professional")
STARTER_DEBATES = 50
TOO_MANY = 60
SETTLED_SHARE = 0.4
BATCH_EVENTS = 40
PAUSE_SECONDS = 0.03
PATIENCE_SECONDS = 60


class Traffic:
    """Endless activities, from `start` to `stop`.

    Args:
        urls: where each service answers; of several, each request goes to a random one. May be changed meanwhile.
        rnd: what is random about it.
    """

    def __init__(self, urls: Mapping[str, Sequence[str]], rnd: random.Random) -> None:
        self.urls = {service: list(each) for service, each in urls.items()}
        self.happened: Counter[str] = Counter()
        self.used: set[tuple[str, str]] = set()
        """Organization and id of all usage that was accepted."""
        self.reserved: defaultdict[str, set[str]] = defaultdict(set)
        """The reservations that were granted, by organization; each may have `STARTER_DEBATES`, and wanted more."""
        self.plans: dict[str, str] = {}
        """Which plan each organization was given last."""
        self.people: set[str] = set()
        """The addresses of all who registered."""
        self.choices: dict[str, str] = {}
        """What people chose of letters about limits, by their ids."""
        self.also: dict[str, Callable[[], Awaitable[None]]] = {}
        """Further activities, by name."""
        self._rnd = rnd
        self._client: httpx.AsyncClient
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._begun: dict[str, float] = {}
        self._failed = False
        self._moved = asyncio.Condition()

    def start(self) -> None:
        """Begin every activity, for the first time or again."""
        self._stop.clear()
        self._client = httpx.AsyncClient(timeout=10, limits=httpx.Limits(max_connections=40))
        acts = {"use": self._use, "reserve": self._reserve, "give plans": self._give_a_plan, "sign up": self._sign_up}
        for name, act in (acts | self.also).items():
            self._begun[name] = 0
            self._tasks.append(asyncio.create_task(self._repeat(name, act)))

    async def stop(self) -> None:
        """End well what is under way: everything that was asked is answered. Raises what an activity failed with."""
        self._stop.set()
        try:
            await asyncio.gather(*self._tasks)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._tasks.clear()
            await self._client.aclose()

    async def goes_on(self) -> dict[str, float]:
        """Return when every activity has begun and ended once more; after how many seconds each did."""
        since = time.monotonic()
        seconds: dict[str, float] = {}

        def all_have() -> bool:
            for name, begun in self._begun.items():
                if begun > since:
                    seconds.setdefault(name, round(time.monotonic() - since, 1))
            return self._failed or len(seconds) == len(self._begun)

        async with asyncio.timeout(2 * PATIENCE_SECONDS), self._moved:
            await self._moved.wait_for(all_have)
        if self._failed:
            await self.stop()
        return seconds

    async def _repeat(self, name: str, act: Callable[[], Awaitable[None]]) -> None:
        try:
            while not self._stop.is_set():
                begun = time.monotonic()
                await act()
                self.happened[name] += 1
                async with self._moved:
                    self._begun[name] = begun
                    self._moved.notify_all()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), PAUSE_SECONDS)
        except BaseException:
            async with self._moved:
                self._failed = True
                self._moved.notify_all()
            raise

    # One question.

    async def ask(
        self, service: str, method: str, path: str, body: Any = None, credential: str | None = ALL_SCOPES
    ) -> httpx.Response:
        """The answer of whoever gives one. Asked again is what nobody could answer: 503, or no answer at all."""
        once = partial(self._ask_once, service, method, path, body, credential)
        answer = await eventually(once, PATIENCE_SECONDS, what=f"{method} {path}")
        assert answer is not None
        return answer

    async def _ask_once(
        self, service: str, method: str, path: str, body: Any, credential: str | None
    ) -> httpx.Response | None:
        url = self._rnd.choice(self.urls[service]) + path
        try:
            answer = await self._client.request(method, url, json=body, headers=bearer(credential))
        except httpx.TransportError as error:
            self.happened[f"{service}: {type(error).__name__}"] += 1
            return None
        if answer.status_code == 503:
            self.happened[f"{service}: 503"] += 1
            return None
        assert answer.status_code < 500, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer

    # What is asked.

    async def _use(self) -> None:
        orgs = [f"org_{self._rnd.randrange(20)}" for _ in range(BATCH_EVENTS)]
        await self._record([usage(org_id) for org_id in orgs])

    async def _record(self, events: list[dict[str, Any]]) -> None:
        answer = await self.ask("metering", "POST", "/api/usage/events", events)
        assert answer.status_code == 202, answer.text
        self.used |= {(event["org_id"], event["id"]) for event in events}

    async def _reserve(self) -> None:
        """More than a limit allows, by several at once, some of which is used."""
        org_id = f"org_{new_id().hex}"
        await self._put_plan(org_id, "starter")
        keys = [str(number) for number in range(TOO_MANY)]

        async def reserve_one_after_another() -> None:
            while keys:
                await self._reserve_one(org_id, keys.pop())

        await asyncio.gather(*(reserve_one_after_another() for _ in range(6)))

    async def _reserve_one(self, org_id: str, key: str) -> None:
        body = {"org_id": org_id, "operations": [DEBATE], "idempotency_key": key, "ttl_seconds": 3600}
        answer = await self.ask("metering", "POST", "/api/usage/reservations", body)
        assert answer.status_code in (200, 201, 429), answer.text
        self.happened[f"reservation {answer.status_code}"] += 1
        if answer.status_code != 429:
            reservation_id = answer.json()["reservation_id"]
            self.reserved[org_id].add(reservation_id)
            if self._rnd.random() < SETTLED_SHARE:
                await self._record([usage(org_id) | {"reservation_id": reservation_id}])

    async def _give_a_plan(self) -> None:
        await self._put_plan(f"org_{self._rnd.randrange(20)}", self._rnd.choice(PLANS))

    async def _put_plan(self, org_id: str, plan: str) -> None:
        """Give an organization a plan, and return when metering has heard of it."""
        path = f"/api/subscription/organizations/{org_id}/subscription"
        answer = await self.ask("billing", "PUT", path, {"plan": plan})
        assert answer.is_success, answer.text
        self.plans[org_id] = plan

        async def heard() -> bool:
            body = {"org_id": org_id, "operations": [DEBATE]}
            answer = await self.ask("metering", "POST", "/api/usage/limits/check", body)
            assert answer.status_code in (200, 404), answer.text
            return answer.status_code == 200 and answer.json()["plan"] == plan

        await eventually(heard, PATIENCE_SECONDS, what=f"metering knows that {org_id} has {plan}")

    async def _sign_up(self) -> None:
        """Somebody registers, signs in and chooses how to be told."""
        email = any_email()
        account = {"email": email, "password": PASSWORD}
        answer = await self.ask("auth", "POST", "/api/auth/register", account, None)
        assert answer.status_code in (201, 409), answer.text  # 409: it was done, and nobody said so
        self.people.add(email)
        signed_in = await self.ask("auth", "POST", "/api/auth/login", account, None)
        assert signed_in.is_success, signed_in.text
        found, choice = signed_in.json()["data"], self._rnd.choice(("at_once", "digest", "off"))
        if "notifier" in self.urls:
            body = {"kinds": {"limit.reached": {"email": choice}}}
            path = "/api/notifications/preferences"
            chosen = await self.ask("notifier", "PUT", path, body, found["access_token"])
            assert chosen.is_success, chosen.text
            self.choices[found["user"]["user_id"]] = choice


def usage(org_id: str) -> dict[str, Any]:
    """A debate of now."""
    return DEBATE | {"id": str(new_id()), "org_id": org_id, "occurred_at": datetime.now(UTC).isoformat()}
