"""The platform's operators: people who may do everything. They are made on the server, never over HTTP."""

from aragora.billing.models import normalize_email
from aragora.billing.passwords import check_strength, hash_password
from aragora.chassis.sql import Pool
from aragora.contracts.events import UserRegistered
from aragora.contracts.ids import new_id
from auth import organizations
from auth.acts import Act, Caller, Clock, acting, queries
from auth.revocations import end_all, stream_of
from auth.settings import Settings
from auth.users import User, load


class UnusableOperator(Exception):
    """The account cannot be an operator's as it is. The message says what to do."""


async def open_operator(pool: Pool, settings: Settings, clock: Clock, *, promote: bool = False) -> None:
    """Open the operator's account, unless it is one already.

    Args:
        pool: of the service's database.
        settings: name the address and the password.
        clock: what is now.
        promote: whether an account that exists may become an operator's.

    Raises:
        UnusableOperator: address or password are no good, or the account exists, and may not be made one.
    """
    email = _address(settings.operator_email or "")
    async with acting(pool, clock, Caller("service:cli")) as act:
        row = await act.connection.fetchrow(queries.user_by_email, email)
        user = User.of(row) if row else await _open(act, email, settings)
        if user.is_operator:
            return
        if not promote or user.email_verified_at is None:
            # Somebody else may have registered with this address before its owner did.
            raise UnusableOperator(
                "The account exists and is no operator's. Have its address verified, then run: auth operator EMAIL"
            )
        await _promote(act, user.user_id)


async def _open(act: Act, email: str, settings: Settings) -> User:
    password = settings.operator_password or ""
    weakness = check_strength(password, personal=[email])
    if weakness is not None:
        raise UnusableOperator(f"ARAGORA_OPERATOR_PASSWORD is too weak: {weakness}")
    hashed = hash_password(password, memory_kib=settings.password_memory_kib, time_cost=settings.password_time_cost)
    user_id = str(new_id())
    await act.connection.fetchrow(queries.open_account, user_id, email, None, hashed, True, act.now)
    await act.connection.execute(queries.verify_email, user_id, act.now)
    await act.say(UserRegistered(user_id=user_id), stream_of(user_id))
    await act.note("registered", user_id=user_id)
    await act.note("operator_made", user_id=user_id)
    await organizations.create(act, user_id, None)
    return await load(act.connection, user_id)


async def withdraw_operator(pool: Pool, email: str, clock: Clock) -> None:
    """Make an operator's account one like any other. Every token that says otherwise is revoked.

    Raises:
        UnusableOperator: it is none.
    """
    async with acting(pool, clock, Caller("service:cli")) as act:
        row = await act.connection.fetchrow(queries.user_by_email, _address(email))
        if row is None or not row["is_operator"]:
            raise UnusableOperator("No operator has this address.")
        user_id = row["user_id"]
        await end_all(act, user_id, "operator_withdrawn")
        await act.connection.execute(queries.set_operator, user_id, False)
        await act.note("operator_withdrawn", user_id=user_id)


def _address(email: str) -> str:
    try:
        return normalize_email(email)
    except ValueError as error:
        raise UnusableOperator(f"The operator's address is not usable: {error}") from error


async def _promote(act: Act, user_id: str) -> None:
    # Tokens say whether they are an operator's: those before say no.
    await end_all(act, user_id, "operator_made")
    await act.connection.execute(queries.set_operator, user_id, True)
    await act.note("operator_made", user_id=user_id)
