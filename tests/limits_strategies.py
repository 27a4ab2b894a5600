"""Plans, operations and usage as hypothesis draws them: small numbers, so that limits are met often."""

from typing import Any

from hypothesis import strategies as st
from limits import CUSTOM, limit

USERS = ("ann", "bob", "cy", None)
PROVIDERS = ("openai", "OpenAI", "gemini", "google", "tavily")
TTLS = (1, 30, 60, 3600)

few = st.sampled_from(("0", "1", "2", "3", "5", "8", "13", "21"))
cents = st.sampled_from(("0", "0.02", "0.2", "0.5", "1.005", "3"))
tokens = st.sampled_from(("0", "500", "1500", "4000", "10000"))
LIMITS: dict[tuple[str, str], st.SearchStrategy[str]] = {
    ("debates", "organization"): few,
    ("api_calls", "organization"): few,
    ("api_calls", "user"): few,
    ("calls:openai", "organization"): few,
    ("calls:gemini", "user"): few,
    ("tokens", "organization"): tokens,
    ("tokens:openai", "user"): tokens,
    ("cost_usd", "organization"): cents,
    ("cost_usd", "user"): cents,
    ("images", "organization"): few,
    ("exports", "organization"): few,
    ("exports", "user"): few,
    ("people", "organization"): st.integers(0, 3).map(str),
    ("largest", "organization"): tokens,
    ("largest", "user"): tokens,
}


@st.composite
def plans(draw: st.DrawFn) -> list[Any]:
    chosen = draw(st.lists(st.sampled_from(sorted(LIMITS)), unique=True, min_size=3, max_size=8))
    variant = draw(st.sampled_from(sorted(CUSTOM)))
    amounts = (LIMITS[one] for one in chosen)
    drawn = [draw(st.one_of(amount, amount, amount, st.none())) for amount in amounts]
    soft = st.sampled_from((None, None, None, "0.05"))
    return [
        limit(CUSTOM[variant].get(name, name), amount, per, overage=draw(soft))
        for (name, per), amount in zip(chosen, drawn, strict=True)
    ]


@st.composite
def quantities(draw: st.DrawFn) -> dict[str, Any]:
    """Of a call to a provider: tokens and cost, each known or not."""
    counts = st.integers(1, 800)
    kind = draw(st.sampled_from(("priced", "told", "bare", "half")))
    if kind == "priced":
        return {"provider": "openai", "model": "gpt-4o", "tokens_in": draw(counts), "tokens_out": draw(counts)}
    given: dict[str, Any] = {"provider": draw(st.sampled_from(PROVIDERS))}
    if kind == "told":
        given |= {"cost_usd": draw(st.sampled_from(("0.01", "0.125", "0.3"))), "tokens_in": draw(counts)}
        given |= {"tokens_out": draw(counts)} if draw(st.booleans()) else {}
    if kind == "half":
        given |= {draw(st.sampled_from(("tokens_in", "tokens_out"))): draw(counts)}
    return given | ({"requests": draw(st.integers(1, 4))} if draw(st.booleans()) else {})


def operations() -> st.SearchStrategy[list[Any]]:
    return st.lists(
        st.one_of(
            quantities(),
            quantities().map(lambda given: given | {"event_type": "debate"}),
            st.just({"event_type": "debate"}),
            st.just({"event_type": "export"}),
            st.builds(lambda n: {"event_type": "image", "images": n}, st.integers(1, 5)),
            st.builds(
                lambda meter, n: {"meter": meter, "amount": n},
                st.sampled_from(("debates", "api_calls", "calls:google", "tokens", "exports", "people", "largest")),
                st.integers(1, 5),
            ),
            st.builds(lambda n: {"meter": "cost_usd", "amount": n}, st.sampled_from(("0.01", "0.2"))),
        ),
        min_size=1,
        max_size=3,
    )


def usages() -> st.SearchStrategy[dict[str, Any]]:
    return st.one_of(
        quantities().map(lambda given: {"event_type": "api_call", "cost_usd": "0.05"} | given),
        st.sampled_from(({"event_type": "debate"}, {"event_type": "export"}, {"event_type": "report"})),
        st.builds(lambda n: {"event_type": "image", "images": n}, st.integers(1, 5)),
    )


WHICH = st.one_of(st.integers(0, 4), st.integers(0, 40))
"""Which one of what there is, the latest first."""
ORGS = st.sampled_from((0, 0, 0, 1))
AGES = st.sampled_from((0, 0, 0, 1, -1, 24 * 16, 24 * 35, 24 * 70))
"""Hours before now."""


def wishes() -> st.SearchStrategy[list[tuple[Any, ...]]]:
    """Questions that come together: (kind, operations, person, time to live, which of those that are known)."""
    kinds = ("reserve", "reserve", "reserve", "keyed", "keyed", "again", "other body", "check", "release", "extend")
    wish = st.tuples(
        st.sampled_from(kinds), operations(), st.sampled_from(USERS), st.sampled_from(TTLS), WHICH
    )  # fmt: skip
    return st.lists(wish, min_size=2, max_size=8)
