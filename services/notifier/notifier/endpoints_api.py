"""HTTP for webhook endpoints: where an organization wants to be told, for its owners and admins."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from pydantic import AfterValidator, Field

from aragora.chassis.answering import answer, documented
from aragora.chassis.bodies import Body, invalid
from aragora.chassis.problems import Problem, responses
from aragora.chassis.sealing import Sealer
from aragora.chassis.security import Principal
from aragora.contracts.events import PLATFORM
from notifier import answers, destinations, endpoints
from notifier import endpoint_answers as shapes
from notifier.bodies import AnyOrgId
from notifier.callers import Person, administered, clock_of, pool_of
from notifier.deliveries import NotWaiting, UnknownDelivery
from notifier.destinations import ForbiddenUrl
from notifier.endpoints import Changes, EndpointDisabled, TestWaits, TooManyEndpoints, UnknownEndpoint
from notifier.kinds import ENDPOINT_TYPES
from notifier.settings import Settings

router = APIRouter(prefix="/api/notifications/endpoints", tags=["endpoints"])

RESOLVE_SECONDS = 5.0


def _single_line(text: str) -> str:
    if text and not text.isprintable():
        raise ValueError("must be a line of printable characters")
    return text.strip()


def _known(event_types: list[str]) -> list[str]:
    unknown = sorted(set(event_types) - set(ENDPOINT_TYPES))
    if unknown:
        # A name that is not short and plain is not repeated.
        named = ", ".join(repr(one[:64]) for one in unknown[:3])
        raise ValueError(f"{named} is no type; there are {', '.join(ENDPOINT_TYPES)}")
    return list(dict.fromkeys(event_types))


EndpointId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Url = Annotated[str, Field(min_length=1, max_length=destinations.MAX_URL_LENGTH, description="Public, with https://")]
Description = Annotated[str, Field(max_length=200), AfterValidator(_single_line)]
EventTypes = Annotated[
    list[str],
    Field(max_length=100, description="Of GET /api/notifications/kinds; empty: all"),
    AfterValidator(_known),
]

answers_endpoint = documented(answers.Success[shapes.Endpoint], "The endpoint")
refusals = responses(400, 401, 403, 404, 409, 413, 422)


class NewEndpoint(Body):
    """Where to be told, and of what. `slack` is for Slack's incoming webhooks and whoever takes the same."""

    url: Url
    description: Description = ""
    event_types: Annotated[EventTypes, Field(default_factory=list)]
    format: shapes.Format = "standard"


class EndpointChange(Body):
    """What is left out stays."""

    url: Url = ""
    description: Description = ""
    event_types: Annotated[EventTypes, Field(default_factory=list)]
    format: shapes.Format = "standard"


class Rotation(Body):
    """For how many hours the secret before goes on signing beside the new one. 0: it is good for nothing at once."""

    keep_hours: Annotated[int, Field(ge=0, le=168)] = 24


@router.post(
    "",
    status_code=201,
    summary="Create an endpoint",
    responses=documented(answers.Success[shapes.EndpointWithSecret], "With the secret, this once", status=201)
    | responses(400, 401, 403, 409, 413, 422),
)
async def create_endpoint(request: Request, principal: Person, body: NewEndpoint, org_id: AnyOrgId = None) -> Response:
    """At most 20 for an organization. Every message is signed as Standard Webhooks says: give `secret` to a library.

    The URL must be public: private and local addresses are refused, now and whenever something is sent there.
    """
    organization = changeable(administered(principal, org_id))
    await check_url(request, body.url)
    chosen = Changes(url=body.url, description=body.description, event_types=body.event_types, format=body.format)
    sealer, now = sealer_of(request), clock_of(request)()
    with answered():
        async with pool_of(request).acquire() as connection, connection.transaction():
            endpoint_id, secret = await endpoints.create(
                connection, sealer, organization, chosen, recorder(principal), now
            )
            found = await endpoints.read(connection, sealer, organization, endpoint_id)
    return with_secret(found, secret, status=201)


@router.get(
    "",
    summary="Endpoints",
    responses=documented(answers.Success[list[shapes.Endpoint]], "The oldest first") | responses(401, 403, 422),
)
async def list_endpoints(request: Request, principal: Person, org_id: AnyOrgId = None) -> Response:
    """The organization's endpoints: how each is doing, and how much waits for it. The secrets are not shown again."""
    organization = administered(principal, org_id)
    async with pool_of(request).acquire() as connection:
        found = await endpoints.read_all(connection, sealer_of(request), organization)
    return answer(answers.Success(found))


@router.get("/{endpoint_id}", summary="An endpoint", responses=answers_endpoint | responses(401, 403, 404, 422))
async def read_endpoint(
    request: Request, principal: Person, endpoint_id: EndpointId, org_id: AnyOrgId = None
) -> Response:
    """How it is doing: since when it fails, when it is tried next, and how much waits."""
    return await _answer(request, administered(principal, org_id), endpoint_id)


@router.patch("/{endpoint_id}", summary="Change an endpoint", responses=answers_endpoint | refusals)
async def change_endpoint(
    request: Request, principal: Person, endpoint_id: EndpointId, body: EndpointChange, org_id: AnyOrgId = None
) -> Response:
    """What waits goes to the new URL, at once. What was queued before stays queued whatever `event_types` says."""
    organization = changeable(administered(principal, org_id))
    given = {name: getattr(body, name) for name in body.model_fields_set}
    if "url" in given:
        await check_url(request, body.url)
    with answered():
        async with pool_of(request).acquire() as connection, connection.transaction():
            await endpoints.change(
                connection, sealer_of(request), organization, endpoint_id, Changes(**given), clock_of(request)()
            )
    return await _answer(request, organization, endpoint_id)


@router.delete(
    "/{endpoint_id}", summary="Delete an endpoint", responses=documented(answers.Done, "It is gone") | refusals
)
async def delete_endpoint(
    request: Request, principal: Person, endpoint_id: EndpointId, org_id: AnyOrgId = None
) -> Response:
    """With what waits for it, and with its log. To keep both, disable it."""
    organization = changeable(administered(principal, org_id))
    with answered():
        async with pool_of(request).acquire() as connection, connection.transaction():
            await endpoints.delete(connection, organization, endpoint_id)
    return answer(answers.Done("The endpoint is deleted"))


@router.post(
    "/{endpoint_id}/rotate-secret",
    summary="A new secret",
    responses=documented(answers.Success[shapes.EndpointWithSecret], "With the new secret, this once") | refusals,
)
async def rotate_secret(
    request: Request, principal: Person, endpoint_id: EndpointId, body: Rotation, org_id: AnyOrgId = None
) -> Response:
    """For a while every message has two signatures, with the old secret and with the new one: change it meanwhile."""
    organization, now = changeable(administered(principal, org_id)), clock_of(request)()
    sealer, keep = sealer_of(request), timedelta(hours=body.keep_hours)
    with answered():
        async with pool_of(request).acquire() as connection, connection.transaction():
            secret = await endpoints.rotate_secret(connection, sealer, organization, endpoint_id, keep, now)
            found = await endpoints.read(connection, sealer, organization, endpoint_id)
    return with_secret(found, secret)


@router.post(
    "/{endpoint_id}/test",
    status_code=202,
    summary="Send a test message",
    responses=documented(answers.Success[shapes.Queued], "It is sent in its turn", status=202) | refusals,
)
async def send_test(request: Request, principal: Person, endpoint_id: EndpointId, org_id: AnyOrgId = None) -> Response:
    """A message of the type `endpoint.test`, to this endpoint only, whatever its `event_types`. Others that wait go
    first, and are tried at once. What came back is in the delivery.
    """
    organization = administered(principal, org_id)
    with answered():
        async with pool_of(request).acquire() as connection, connection.transaction():
            queued = await endpoints.send_test(connection, organization, endpoint_id, clock_of(request)())
    return answer(answers.Success(queued), status=202)


@router.post("/{endpoint_id}/disable", summary="Send nothing there", responses=answers_endpoint | refusals)
async def disable_endpoint(
    request: Request, principal: Person, endpoint_id: EndpointId, org_id: AnyOrgId = None
) -> Response:
    """Until it is enabled. What waits goes on waiting; what comes meanwhile is kept as `skipped`, to be redelivered."""
    organization = administered(principal, org_id)
    with answered():
        async with pool_of(request).acquire() as connection, connection.transaction():
            await endpoints.disable(connection, organization, endpoint_id, clock_of(request)())
    return await _answer(request, organization, endpoint_id)


@router.post("/{endpoint_id}/enable", summary="Send there again", responses=answers_endpoint | refusals)
async def enable_endpoint(
    request: Request, principal: Person, endpoint_id: EndpointId, org_id: AnyOrgId = None
) -> Response:
    """At once, as if nothing had failed: what waits is tried now. For what came meanwhile ask to redeliver it."""
    organization = administered(principal, org_id)
    with answered():
        async with pool_of(request).acquire() as connection, connection.transaction():
            await endpoints.enable(connection, organization, endpoint_id, clock_of(request)())
    return await _answer(request, organization, endpoint_id)


def sealer_of(request: Request) -> Sealer:
    """What opens URLs and secrets."""
    sealer: Sealer = request.app.state.notifier_sealer
    return sealer


def recorder(principal: Principal) -> str:
    """Who does something: a person's id, or a service by its name."""
    return principal.subject if principal.kind == "user" else f"{principal.kind}:{principal.subject}"


def changeable(org_id: str) -> str:
    """The organization, if endpoints are made and changed here: a `Problem` (409) for the platform's own."""
    if org_id == PLATFORM:
        raise Problem(409, "The platform's endpoint is what ARAGORA_NOTIFICATION_WEBHOOK says; change that.")
    return org_id


async def check_url(request: Request, url: str) -> None:
    """Whether something may be sent there, as things are. Otherwise a `Problem` (422) that says why."""
    settings: Settings = request.app.state.notifier_settings
    try:
        async with asyncio.timeout(RESOLVE_SECONDS):
            await destinations.check_destination(url, settings.networks)
    except ForbiddenUrl as error:
        raise invalid("url", str(error)) from error
    except OSError as error:
        raise invalid("url", "the name of its host is not known, or nobody answers for it just now") from error


@contextmanager
def answered() -> Iterator[None]:
    """What endpoints and deliveries refuse, as answers."""
    try:
        yield
    except (UnknownEndpoint, UnknownDelivery) as error:
        raise Problem(404, str(error)) from error
    except (TooManyEndpoints, EndpointDisabled, TestWaits, NotWaiting) as error:
        raise Problem(409, str(error)) from error


def with_secret(endpoint: shapes.Endpoint, secret: str, status: int = 200) -> Response:
    """An endpoint with its secret, which nobody on the way keeps."""
    told = {name: getattr(endpoint, name) for name in shapes.Endpoint.__struct_fields__}
    shown = answer(answers.Success(shapes.EndpointWithSecret(**told, secret=secret)), status=status)
    shown.headers["Cache-Control"] = "no-store"
    return shown


async def _answer(request: Request, org_id: str, endpoint_id: str) -> Response:
    with answered():
        async with pool_of(request).acquire() as connection:
            found = await endpoints.read(connection, sealer_of(request), org_id, endpoint_id)
    return answer(answers.Success(found))
