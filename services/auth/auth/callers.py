"""Who asks, and what a route needs to answer: the service's connections, its clock, the caller's credential."""

from contextlib import AbstractAsyncContextManager
from ipaddress import ip_address, ip_network
from typing import Annotated

from fastapi import Request, Security

from aragora.billing.jwt_auth import TokenPayload
from aragora.chassis.problems import Problem
from aragora.chassis.sealing import Sealer
from aragora.chassis.security import Principal, authenticated
from aragora.chassis.sql import Pool
from auth.acts import Act, Caller, Clock, acting

MAX_PROGRAM_LENGTH = 200


def pool_of(request: Request) -> Pool:
    """The service's connections."""
    pool: Pool = request.app.state.auth_pool
    return pool


def clock_of(request: Request) -> Clock:
    """The service's clock."""
    clock: Clock = request.app.state.auth_clock
    return clock


def sealer_of(request: Request) -> Sealer:
    """What seals and signs."""
    sealer: Sealer = request.app.state.auth_sealer
    return sealer


def address_of(request: Request) -> str:
    """The caller's network address: the peer's, or what a trusted proxy says of whom it speaks for."""
    peer = request.client.host if request.client else ""
    proxies: list[str] = request.app.state.auth_proxies
    said = [part.strip() for part in request.headers.get("x-forwarded-for", "").split(",") if part.strip()]
    while said and _is_among(peer, proxies):
        peer = said.pop()
    return peer[:45]


def _is_among(address: str, networks: list[str]) -> bool:
    try:
        return any(ip_address(address) in ip_network(network) for network in networks)
    except ValueError:
        return False


def caller_of(request: Request, principal: Principal | None = None) -> Caller:
    """Who acts, for the audit log."""
    actor = None
    if principal is not None:
        actor = f"service:{principal.subject}" if principal.kind == "service" else principal.subject
    program = request.headers.get("user-agent", "")[:MAX_PROGRAM_LENGTH] or None
    return Caller(actor, address_of(request) or None, program)


def act_of(request: Request, principal: Principal | None = None) -> AbstractAsyncContextManager[Act]:
    """An act of the caller: a transaction that is committed when the block ends well."""
    return acting(pool_of(request), clock_of(request), caller_of(request, principal))


async def signed_in(principal: Annotated[Principal, Security(authenticated)]) -> Principal:
    """A dependency: a person with an access token. Keys of any kind are refused with 403."""
    if principal.kind != "user":
        raise Problem(403, "This is for people: sign in, and send the access token.")
    return principal


Person = Annotated[Principal, Security(signed_in)]


def token_of(principal: Principal) -> TokenPayload:
    """The access token that a person came with."""
    if principal.token is None:
        raise Problem(403, "This is for people: sign in, and send the access token.")
    return principal.token
