"""Five sample organizations, and what they call."""

import random
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aragora.contracts.ids import new_id


@dataclass(frozen=True, slots=True)
class Call:
    """A kind of call: what it is, how many tokens it takes (typically), and how often it is made."""

    event_type: str
    provider: str
    model: str
    tokens_in: int
    tokens_out: int
    weight: int


@dataclass(frozen=True, slots=True)
class Organization:
    """Its people, its share of the traffic in percent, and its plan: a place on the ladder of those on sale."""

    people: tuple[str, ...]
    share: int
    rung: int
    """From 0, the smallest; -1 is the largest."""


CALLS = (
    Call("debate", "anthropic", "claude-sonnet-4", 2400, 700, 20),
    Call("debate", "openai", "gpt-4o", 1900, 600, 15),
    Call("debate", "anthropic", "claude-opus-4", 3100, 900, 4),
    Call("api_call", "openai", "gpt-4o-mini", 900, 250, 25),
    Call("api_call", "gemini", "gemini-2.5-flash", 1500, 300, 20),
    Call("api_call", "gemini", "gemini-2.5-pro", 4200, 800, 6),
    Call("api_call", "mistral", "mistral-small-latest", 800, 200, 8),
    Call("api_call", "deepseek", "deepseek-chat", 1600, 500, 8),
)

ORGANIZATIONS = {
    "acme-robotics": Organization(("amara", "boris", "chen", "dolores"), 50, -1),
    "borealis-law": Organization(("edith", "farouk"), 8, 1),
    "cinder-games": Organization(("gus", "hana", "ivo", "june", "kofi", "lena"), 30, 2),
    "delta-clinic": Organization(("mina", "noor", "otis"), 2, 0),
    "echo-school": Organization(("pia", "quentin", "rosa", "sami"), 10, 1),
}
_SHARES = [organization.share for organization in ORGANIZATIONS.values()]


def sample_event(chance: random.Random, now: datetime) -> dict[str, Any]:
    """One plausible usage event, in native form."""
    org_id = chance.choices(list(ORGANIZATIONS), _SHARES)[0]
    call = chance.choices(CALLS, [call.weight for call in CALLS])[0]
    tokens_in = round(chance.lognormvariate(0, 0.6) * call.tokens_in)
    event: dict[str, Any] = {
        "id": str(new_id()),
        "org_id": org_id,
        "user_id": chance.choice(ORGANIZATIONS[org_id].people),
        "event_type": call.event_type,
        "provider": call.provider,
        "model": call.model,
        "tokens_in": tokens_in,
        "tokens_out": round(chance.lognormvariate(0, 0.5) * call.tokens_out),
        "status": 200,
        "response_time_ms": round(chance.lognormvariate(6.5, 0.5)),
        "occurred_at": now.isoformat(),
    }
    if call.event_type == "debate" and chance.random() < 0.5:
        event["tokens_cached"] = tokens_in // 3
    return event


def question(event: dict[str, Any]) -> dict[str, Any]:
    """What is asked before the call that this event tells of: may it be made? The event's id names the question."""
    operation = {name: event[name] for name in ("event_type", "provider", "model", "tokens_in")}
    return {
        "org_id": event["org_id"],
        "user_id": event["user_id"],
        "operations": [operation],
        "idempotency_key": event["id"],
    }
