import hashlib
from typing import Annotated

import httpx
import pytest
from fastapi import APIRouter, Depends

from aragora.billing.jwt_auth import create_access_token, create_refresh_token
from aragora.chassis.app import create_app
from aragora.chassis.problems import Problem
from aragora.chassis.security import (
    Principal,
    ServiceKeyError,
    authenticated,
    authorize_org,
    organization_of,
    parse_service_keys,
    require,
)
from aragora.contracts.keys import KeyHolder

KEY = "svc_" + "k" * 43
DIGEST = hashlib.sha256(KEY.encode()).hexdigest()

API_KEY, PLANLESS_KEY = "ara_" + "a" * 43, "ara_" + "p" * 43
routes = APIRouter()


class OneKey:
    """Knows one API key, and which tokens were revoked, unless it is told that it does not."""

    is_sure = True

    def demand(self) -> None:
        if not self.is_sure:
            raise Problem(503, "not known here yet", headers={"Retry-After": "1"})

    async def verify_key(self, key: str) -> KeyHolder | None:
        if key == PLANLESS_KEY:
            raise Problem(403, "no API access")
        holder = KeyHolder(key_id="k1", user_id="u1", org_id="o1", scopes=("usage.read",))
        return holder if key == API_KEY else None


@routes.get("/me")
async def me(principal: Annotated[Principal, Depends(authenticated)]) -> str:
    return f"{principal.kind} {principal.subject}"


@routes.post("/write")
async def write(principal: Annotated[Principal, Depends(require("usage.write"))]) -> str:
    return principal.subject


@routes.get("/org/{org_id}")
async def read(org_id: str, principal: Annotated[Principal, Depends(require("usage.read", people=True))]) -> str:
    authorize_org(principal, org_id)
    return org_id


@routes.get("/about")
async def about(
    principal: Annotated[Principal, Depends(require("usage.read", people=True))], org_id: str | None = None
) -> tuple[str | None, bool, bool]:
    return organization_of(principal, org_id), principal.administers, principal.reaches_all


@pytest.fixture
def trust():
    return OneKey()


@pytest.fixture
async def http(monkeypatch, trust):
    monkeypatch.setenv("ARAGORA_JWT_SECRET", "s" * 32)
    keys = parse_service_keys(f"metering:{DIGEST}:usage.write+usage.read")
    app = create_app(title="T", version="1", routers=[routes], service_keys=keys)
    app.state.trust = trust
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_a_service_key_comes_in_either_header(http):
    assert (await http.get("/me", headers=bearer(KEY))).json() == "service metering"
    assert (await http.get("/me", headers={"X-API-Key": KEY})).json() == "service metering"


async def test_a_person_comes_with_an_access_token(http):
    assert (await http.get("/me", headers=bearer(create_access_token("u1", "e", "o1")))).json() == "user u1"


async def test_a_program_comes_with_an_api_key_in_either_header(http):
    assert (await http.get("/me", headers=bearer(API_KEY))).json() == "api_key k1"
    assert (await http.get("/me", headers={"X-API-Key": API_KEY})).json() == "api_key k1"
    assert (await http.get("/me", headers=bearer(PLANLESS_KEY))).status_code == 403
    assert (await http.get("/org/o1", headers=bearer(API_KEY))).status_code == 200
    assert (await http.get("/org/o2", headers=bearer(API_KEY))).status_code == 403
    refused = await http.post("/write", headers=bearer(API_KEY))
    assert (refused.status_code, "usage.write" in refused.json()["detail"]) == (403, True)


async def test_no_person_is_let_in_while_revocations_are_not_known(http, trust):
    trust.is_sure = False
    answer = await http.get("/me", headers=bearer(create_access_token("u1", "e", "o1")))
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    for program in (KEY, API_KEY):
        assert (await http.get("/me", headers=bearer(program))).status_code == 200


async def test_who_may_ask_about_what(http):
    """Asking about nothing in particular, about o1, and about o2: which organization it is then, or the refusal."""
    no, operator = 403, create_access_token("u1", "e", operator=True)
    for credential, found, administers, reaches_all in (
        (KEY, (None, "o1", "o2"), True, True),
        (API_KEY, ("o1", "o1", no), True, False),
        (create_access_token("u1", "e", "o1"), ("o1", "o1", no), False, False),
        (create_access_token("u1", "e", "o1", "admin"), ("o1", "o1", no), True, False),
        (create_access_token("u1", "e", "o1", "owner"), ("o1", "o1", no), True, False),
        (create_access_token("u1", "e", None, "owner"), (no, no, no), True, False),
        (operator, (no, "o1", "o2"), True, True),
        (create_access_token("u1", "e", "o1", operator=True), ("o1", "o1", "o2"), True, True),
    ):
        for asked, expected in zip((None, "o1", "o2"), found, strict=True):
            params = {"org_id": asked} if asked else {}
            answer = await http.get("/about", params=params, headers=bearer(credential))
            said = answer.status_code if answer.status_code != 200 else answer.json()
            assert said == (no if expected == no else [expected, administers, reaches_all]), (credential[:4], asked)
    assert (await http.post("/write", headers=bearer(operator))).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": "Bearer"},
        {"X-API-Key": ""},
        {},
    ],
    ids=str,
)
async def test_no_credential_is_401_without_a_reason(http, headers):
    answer = await http.get("/me", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="aragora"'
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_wrong_credential_is_401_and_says_so(http):
    refresh = create_refresh_token("u1", "e", "o1")
    for credential in (KEY[:-1] + "x", KEY + "x", "svc_", "ara_0123456789abcdef", "a.b.c", refresh, DIGEST):
        answer = await http.get("/me", headers=bearer(credential))
        assert answer.status_code == 401, credential
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]
        assert credential not in answer.text


async def test_a_missing_scope_is_403(http):
    assert (await http.post("/write", headers=bearer(KEY))).status_code == 200
    answer = await http.post("/write", headers=bearer(create_access_token("u1", "e", "o1", "owner")))
    assert answer.status_code == 403
    assert "usage.write" in answer.json()["detail"]


async def test_people_reach_their_own_organization_only(http):
    own, foreign = bearer(create_access_token("u1", "e", "o1")), bearer(create_access_token("u2", "e", "o2"))
    without = bearer(create_access_token("u3", "e"))
    assert [(await http.get("/org/o1", headers=one)).status_code for one in (own, foreign, without, bearer(KEY))] == [
        200,
        403,
        403,
        200,
    ]


async def test_the_document_shows_how_to_authenticate(http):
    document = (await http.get("/openapi.json")).json()
    assert document["paths"]["/write"]["post"]["security"] == [{"HTTPBearer": []}, {"APIKeyHeader": []}]
    assert document["components"]["securitySchemes"].keys() == {"HTTPBearer", "APIKeyHeader"}


def test_keys_may_share_a_name_and_spaces_and_trailing_commas_do_no_harm():
    keys = parse_service_keys(f" a:{DIGEST}:operator , a:{'0' * 64}:usage.read+usage.write,")
    assert [(key.name, sorted(key.scopes)) for key in keys] == [
        ("a", ["operator"]),
        ("a", ["usage.read", "usage.write"]),
    ]
    assert parse_service_keys("") == ()


@pytest.mark.parametrize(
    "entry",
    [
        "metering",
        f"metering:{DIGEST}",
        f"metering:{DIGEST}:",
        f"metering:{DIGEST[:-1]}:operator",
        f":{DIGEST}:operator",
    ],
)
def test_a_wrong_entry_is_named_but_not_shown(entry):
    with pytest.raises(ServiceKeyError, match=r"entry 2 .*name:sha256hex:scope") as caught:
        parse_service_keys(f"ok:{DIGEST}:operator,{entry}")
    assert DIGEST[:20] not in str(caught.value)


def test_authorize_org_speaks_for_itself():
    with pytest.raises(Problem, match="not a member"):
        authorize_org(Principal("user", "u", "o1"), "o2")
