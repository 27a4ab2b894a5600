"""Requests to the world: checked parameters in, objects out, and the same answer again for the same key.

`call` is for tests that drive the world in their own process; the HTTP server goes through `answer`.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from standalone.stripe_simulator import lists, parameters, routes
from standalone.stripe_simulator.clock import DAY
from standalone.stripe_simulator.problems import StripeProblem, invalid
from standalone.stripe_simulator.shapes import Thing, copied
from standalone.stripe_simulator.world import World

KEPT_SECONDS = DAY
"""How long an answer is kept for its idempotency key."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request is answered with."""

    status: int
    body: Thing
    replayed: bool = False


@dataclass(slots=True)
class Calls:
    """The requests to one world: which were made, and what those with a key were answered."""

    world: World
    counts: Counter[str] = field(default_factory=Counter)
    """By method and route, as `POST /v1/subscriptions/*`."""
    kept: dict[str, tuple[int, Any, Answer]] = field(default_factory=dict)

    def answer(self, method: str, path: str, params: Thing, key: str | None = None) -> Answer:
        """Do what is asked. `params` may be strings, as a form has them, or have their types already."""
        self.world.run_due()
        found = routes.route_of(method, path)
        self.counts[f"{method} {found[0].path if found else path}"] += 1
        fingerprint = (method, path, params)
        if key:
            kept = self.kept.get(key)
            if kept and kept[0] > self.world.clock.now() - KEPT_SECONDS:
                return _again(kept[1], kept[2], fingerprint, key)
        self.world.request = {"id": self.world.new_id("req"), "idempotency_key": key}
        try:
            given = Answer(200, self._done(found, method, path, params))
        except StripeProblem as problem:
            given = Answer(problem.status, problem.body())
        if key and given.status in {200, 402}:
            self.kept[key] = (self.world.clock.now(), copied({"of": fingerprint})["of"], given)
        return given

    def _done(self, found: tuple[routes.Route, list[str]] | None, method: str, path: str, params: Thing) -> Thing:
        if found is None:
            text = f"Unrecognized request URL ({method}: {path}), or the Stripe simulator does not play it."
            raise StripeProblem(404, "invalid_request_error", text)
        route, ids = found
        read = parameters.checked(params, route.kind)
        expand = read.pop("expand", [])
        answer = copied(route.deed(self.world, read, *ids))
        return lists.expanded(self.world, answer, expand)


def _again(fingerprint: Any, kept: Answer, asked: Any, key: str) -> Answer:
    if list(fingerprint) != list(asked):
        text = (
            "Keys for idempotent requests can only be used with the same parameters they were first used with. Try "
            f"using a key other than '{key}' if you meant to execute a different request."
        )
        problem = StripeProblem(400, "idempotency_error", text)
        return Answer(problem.status, problem.body())
    return Answer(kept.status, kept.body, replayed=True)


def call(world: World, method: str, path: str, params: Thing | None = None) -> Thing:
    """Ask the world directly. Raises StripeProblem where Stripe would refuse."""
    found = routes.route_of(method, path)
    if found is None:
        raise invalid(f"The Stripe simulator does not play {method} {path}.")
    world.run_due()
    route, ids = found
    read = parameters.checked(params or {}, route.kind)
    expand = read.pop("expand", [])
    return lists.expanded(world, copied(route.deed(world, read, *ids)), expand)
