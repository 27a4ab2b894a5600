"""Limits against an oracle: whatever plans, usage, reservations and time do, in any order, metering says the same."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from limits import check, entitlements, reserve
from limits_judge import judge
from limits_oracle import Organization
from limits_strategies import AGES, ORGS, USERS, WHICH, plans, usages, wishes
from limits_world import LimitWorld
from usage import cloudevent, message

from aragora.contracts.ids import new_id
from aragora.contracts.limits import Extend, Release, Reserve
from metering.limit_desk import Question

STARTS = (datetime(2026, 6, 15, 12, tzinfo=UTC), datetime(2026, 6, 30, 23, 58, tzinfo=UTC))


class LimitModel(RuleBasedStateMachine):
    """Two organizations, each beside its oracle."""

    world: LimitWorld

    @initialize(
        start=st.sampled_from(STARTS), plans=st.tuples(plans(), plans()), is_known=st.sampled_from((True, True, False))
    )
    def begin(self, start: datetime, plans: tuple[list[Any], list[Any]], *, is_known: bool) -> None:
        self.world.run(self.world.start_anew(start))
        self.orgs = {f"org_{new_id().hex}": Organization() for _ in range(2)}
        self.names = list(self.orgs)
        self.said: list[tuple[str, Any]] = []
        self.messages: list[bytes] = []
        self.keyed: dict[str, list[Reserve]] = {}
        self.change_plan(0, plans[0])
        if is_known:
            self.change_plan(1, plans[1])

    @rule(org=ORGS, plan=plans())
    def change_plan(self, org: int, plan: list[Any]) -> None:
        name = self.names[org]
        change = entitlements(*plan, revision=self.orgs[name].revision + 1)
        self.said.append((name, change))
        self._apply((name, change))

    @rule(picks=st.lists(WHICH, min_size=1, max_size=3), usage=st.booleans())
    def redeliver_in_any_order(self, picks: list[int], *, usage: bool) -> None:
        if not usage:
            self._apply(*(self.said[-1 - pick % len(self.said)] for pick in picks))
        for pick in picks if usage and self.messages else ():
            assert self.world.run(self.world.record(self.messages[-1 - pick % len(self.messages)])) == 0

    def _apply(self, *changes: tuple[str, Any]) -> None:
        self.world.run(self.world.entitle(changes))
        for name in {name for name, _ in changes}:
            last = max((change for whose, change in changes if whose == name), key=lambda one: one.revision)
            self.orgs[name].entitle(last.revision, list(last.limits), self.world.now)

    @rule(
        org=ORGS,
        given=st.lists(st.tuples(usages(), st.sampled_from(USERS), AGES), min_size=1, max_size=6),
        again=st.booleans(),
    )
    def use(self, org: int, given: list[Any], *, again: bool) -> None:
        self._record(self.names[org], [(usage, user, hours) for usage, user, hours in given], again=again)

    @precondition(lambda self: any(one.reservations for one in self.orgs.values()))
    @rule(org=ORGS, picks=st.lists(WHICH, min_size=1, max_size=3), usage=usages(), twice=st.booleans())
    def settle(self, org: int, picks: list[int], usage: dict[str, Any], *, twice: bool) -> None:
        ids = self._reservations(self.names[org])
        named = [usage | {"reservation_id": ids[pick % len(ids)]} for pick in picks] * (2 if twice else 1)
        self._record(self.names[org], [(one, "ann", 0) for one in named], again=False)

    def _record(self, name: str, given: list[Any], *, again: bool) -> None:
        now = self.world.now
        events = [
            (str(new_id()), now - timedelta(hours=hours), usage | {"user_id": user}) for usage, user, hours in given
        ]
        bare = {"provider": ..., "model": ..., "tokens_in": ..., "tokens_out": ...}
        sent = [
            cloudevent(**bare | {"id": event_id, "org_id": name, "occurred_at": moment.isoformat()} | usage
                       | {"user_id": usage["user_id"] or ...})
            for event_id, moment, usage in events
        ]  # fmt: skip
        body = message(*sent, *(sent if again else ()))
        self.messages.append(body)
        assert self.world.run(self.world.record(body)) == len(events)
        clean = [(event_id, moment.replace(tzinfo=UTC), usage) for event_id, moment, usage in events]
        self.orgs[name].record(clean, now)

    @rule(org=ORGS, wished=wishes())
    def ask(self, org: int, wished: list[tuple[Any, ...]]) -> None:
        name = self.names[org]
        questions = [self._question(name, *wish) for wish in wished]
        answers = self.world.run(self.world.ask(name, *questions))
        judge(self.orgs[name], list(zip(questions, answers, strict=True)), self.world.now)

    @rule(org=ORGS, wished=wishes())
    def ask_more(self, org: int, wished: list[tuple[Any, ...]]) -> None:
        """The same, so that it is done twice as often."""
        self.ask(org, wished)

    def _reservations(self, name: str) -> list[str]:
        """The ids of its own reservations, the latest first, then everybody's, then one that there is not."""
        everybody = [one for each in self.orgs.values() for one in each.reservations]
        return [*reversed(self.orgs[name].reservations), *everybody, "unknown"]

    def _question(self, name: str, kind: str, operations: list[Any], user: str | None, ttl: int, pick: int) -> Question:
        ids = self._reservations(name)
        if kind == "check":
            return check(*operations, user_id=user)
        if kind == "release":
            return Release(reservation_id=ids[pick % len(ids)])
        if kind == "extend":
            return Extend(reservation_id=ids[pick % len(ids)], ttl_seconds=ttl)
        keyed = self.keyed.setdefault(name, [])
        if kind in ("again", "other body") and keyed:
            known = keyed[-1 - pick % len(keyed)]
            return known if kind == "again" else msgspec.structs.replace(known, ttl_seconds=known.ttl_seconds + 1)
        question = reserve(*operations, user_id=user, ttl_seconds=ttl)
        if kind == "keyed":
            question.idempotency_key = f"key-{len(keyed)}"
            keyed.append(question)
        return question

    @rule(seconds=st.sampled_from((1, 29, 31, 600, 7200, 26 * 3600)))
    def let_time_pass(self, seconds: int) -> None:
        self.world.now += timedelta(seconds=seconds)

    @rule()
    def sweep(self) -> None:
        self.world.run(self.world.sweep())
        for org in self.orgs.values():
            org.expire(self.world.now)
            org.forget(self.world.now)

    @invariant()
    def metering_says_the_same(self) -> None:
        for name, org in self.orgs.items():
            found = self.world.run(self.world.found(name))
            assert found.used == org.standing(self.world.now)
            assert found.held == org.held()
            assert found.states == {one.id: one.state for one in org.reservations.values()}
            assert found.said == {key: said for key, said in org.said.items() if said}
            assert sorted(found.expired) == sorted(org.expired)

    def teardown(self) -> None:
        verdict = self.world.run(self.world.verify())
        assert verdict.equal, verdict.differences


def explore(database_url: str, examples: int, steps: int) -> None:
    with asyncio.Runner() as runner, LimitWorld.running(runner, database_url) as world:
        LimitModel.world = world
        run_state_machine_as_test(
            LimitModel,
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                print_blob=True,
                phases=(Phase.explicit, Phase.generate, Phase.shrink),
                suppress_health_check=list(HealthCheck),
            ),
        )


def test_no_difference_from_the_oracle(metering_database_url: str):
    explore(metering_database_url, 50, 25)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_no_difference_from_the_oracle_in_the_long_run(metering_database_url: str):
    explore(metering_database_url, 1000, 50)
