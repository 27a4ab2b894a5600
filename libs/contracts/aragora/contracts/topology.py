"""The bus: its streams, their consumers, its users and what each may do.

Declared here once, applied by `aragora topology apply`, and never by a service at start-up.
"""

from dataclasses import dataclass
from datetime import timedelta
from fnmatch import fnmatchcase
from zlib import crc32

from aragora.contracts.alerts import UNREAD_ALERTS
from aragora.contracts.contacts import READ_CONTACTS
from aragora.contracts.messages import READ_MESSAGE

PARTITIONS = 16
"""Number of usage subjects. One organization's usage always travels on one of them."""

MAX_MESSAGE_BYTES = 1024 * 1024
"""The largest message that a publisher may send; a batch over it is sent as several messages."""
MAX_MESSAGE_EVENTS = 500
"""Usage events that the edge puts into one message: past this, fewer flushes to disk save nothing more."""


def usage_partition(org_id: str) -> int:
    """The partition of an organization: CRC-32 (IEEE) of the UTF-8 id, modulo `PARTITIONS`."""
    return crc32(org_id.encode()) % PARTITIONS


def usage_subject(partition: int) -> str:
    """The subject on which a partition's usage is published."""
    return f"usage.recorded.{partition}"


@dataclass(frozen=True, slots=True)
class Stream:
    """A JetStream stream. `work_queue` streams forget a message once it is acknowledged; the others after `max_age`."""

    name: str
    subjects: tuple[str, ...]
    description: str
    work_queue: bool = False
    max_age: timedelta | None = None
    duplicate_window: timedelta = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class Consumer:
    """A durable pull consumer. Its deliveries are unlimited: `chassis.consume` decides when a message is dead."""

    name: str
    stream: str
    filter_subjects: tuple[str, ...]
    description: str
    ack_wait: timedelta = timedelta(seconds=30)
    max_ack_pending: int = 4096

    @property
    def retries(self) -> str:
        """The subject on which its own service sends it a dead letter again, and nobody else hears it."""
        return f"retries.{self.name}"

    @property
    def subjects(self) -> tuple[str, ...]:
        """All that it takes. Usage comes again as it came: nobody but metering takes it."""
        return self.filter_subjects if self.stream == USAGE.name else (*self.filter_subjects, self.retries)


@dataclass(frozen=True, slots=True)
class Account:
    """A user of the bus and the subjects it may publish and subscribe to. Its inbox is `_INBOX.<name>`.

    Who answers may publish to the inboxes of who may ask, not to whatever subject a question names for its answer:
    with `$JS.API.STREAM.PURGE.…` for one, who asks would have had a service purge a stream.
    """

    name: str
    description: str
    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    publish_denied: tuple[str, ...] = ()
    """What it may not publish although `publish` would allow it."""

    @property
    def inbox_prefix(self) -> str:
        """The prefix of this user's reply subjects, so that nobody else can listen to its answers."""
        return f"_INBOX.{self.name}"


USAGE = Stream(
    name="USAGE",
    subjects=("usage.recorded.*",),
    description="Usage events on their way to the log, in CloudEvents JSON batches",
    work_queue=True,
)
EVENTS = Stream(
    name="EVENTS",
    subjects=("events.*.*.*", "retries.*"),
    description="Domain events of all services, and dead letters on their way to one consumer again",
    max_age=timedelta(days=30),
)
STREAMS = (USAGE, EVENTS)

LANES = 4
"""Consumers that the partitions are dealt out to. Every worker takes from all of them, one chunk from one lane at a
time: so a chunk holds the usage of a quarter of the organizations, touches fewer projection rows, and workers seldom
wait for each other's (docs/decisions/0008).
"""

METERING_WORKERS = tuple(
    Consumer(
        name=f"metering-workers-{lane}",
        stream=USAGE.name,
        filter_subjects=tuple(usage_subject(partition) for partition in range(lane, PARTITIONS, LANES)),
        description="Metering workers compete here; to scale, start more of them",
    )
    for lane in range(LANES)
)
METERING_ENTITLEMENTS = Consumer(
    name="metering-entitlements",
    stream=EVENTS.name,
    filter_subjects=("events.billing.EntitlementsChanged.*", "events.billing.PlanPublished.*"),
    description="Metering keeps its own copy of what organizations may do",
)
METERING_ERASURES = Consumer(
    name="metering-erasures",
    stream=EVENTS.name,
    filter_subjects=("events.auth.UserErased.*",),
    description="Metering takes an erased person's name from the usage; the totals stay",
    ack_wait=timedelta(minutes=10),
)
BILLING_ORGANIZATIONS = Consumer(
    name="billing-organizations",
    stream=EVENTS.name,
    filter_subjects=(
        "events.auth.OrganizationCreated.*",
        "events.auth.OrganizationDeleted.*",
        "events.auth.MemberJoined.*",
        "events.auth.MemberRemoved.*",
        "events.auth.UserErased.*",
    ),
    description="Billing gives every new organization the default plan",
)
BILLING_USAGE_PERIODS = Consumer(
    name="billing-usage-periods",
    stream=EVENTS.name,
    filter_subjects=("events.metering.UsagePeriodClosed.*",),
    description="Billing charges for what was used beyond a plan",
)
AUTH_ENTITLEMENTS = Consumer(
    name="auth-entitlements",
    stream=EVENTS.name,
    filter_subjects=("events.billing.EntitlementsChanged.*",),
    description="Auth keeps its own copy of seats and features",
)
TOLD = {
    "auth": (
        "EmailVerificationRequested PasswordResetRequested MemberInvited PasswordChanged SecondFactorChanged "
        "AccountLocked"
    ),
    "metering": "LimitReached BudgetExceeded UnpricedUsageSeen UsageAnomalySeen",
    "billing": (
        "SubscriptionChanged SubscriptionCancelled InvoiceFinalized PaymentSucceeded PaymentFailed PaymentWaived "
        "PaymentActionRequired PaymentReminderDue PaymentRecovered GracePeriodExpired PaymentRefunded PaymentDisputed "
        "CreditGranted BillingAttentionNeeded"
    ),
}
"""Of what people are told, by service."""
NOTIFIER_EVENTS = Consumer(
    name="notifier-events",
    stream=EVENTS.name,
    filter_subjects=tuple(f"events.{service}.{event}.*" for service, told in TOLD.items() for event in told.split()),
    description="The notifier tells people what they should know",
    ack_wait=timedelta(seconds=10),
)
CHANGES_OF_PEOPLE = (
    "OrganizationRenamed OrganizationDeleted MemberJoined MemberRemoved RoleChanged EmailVerified UserErased"
)
NOTIFIER_PEOPLE = Consumer(
    name="notifier-people",
    stream=EVENTS.name,
    filter_subjects=tuple(f"events.auth.{event}.*" for event in CHANGES_OF_PEOPLE.split()),
    description="The notifier forgets what it knew of who belongs where, and whoever is erased",
)
CONSUMERS = (
    *METERING_WORKERS, METERING_ENTITLEMENTS, METERING_ERASURES, BILLING_ORGANIZATIONS, BILLING_USAGE_PERIODS,
    AUTH_ENTITLEMENTS, NOTIFIER_EVENTS, NOTIFIER_PEOPLE,
)  # fmt: skip

REVOCATIONS = ("events.auth.TokenRevoked.*", "events.auth.UserTokensRevoked.*", "events.auth.ApiKeyRevoked.*")
"""What every process that verifies credentials follows by itself, with consumers of its own that end with it."""
VERIFY_KEY = "rpc.auth.verify_key"
"""Whose API key is this? See `aragora.contracts.keys`."""

LIMITS_QUEUE = "metering"
"""The queue group in which metering's processes share the questions on `rpc.metering.*`."""
LIMIT_VERBS = ("check", "reserve", "release", "extend")


def retried_on(service: str, subject: str) -> str | None:
    """Where a service sends a message again that had this subject; None: no consumer of it takes such any more."""
    for each in CONSUMERS:
        if each.name.startswith(f"{service}-") and any(fnmatchcase(subject, one) for one in each.filter_subjects):
            return subject if each.stream == USAGE.name else each.retries
    return None


def _may_consume(consumer: Consumer) -> tuple[str, ...]:
    return (
        *consumer.subjects[len(consumer.filter_subjects) :],
        f"$JS.API.CONSUMER.INFO.{consumer.stream}.{consumer.name}",
        f"$JS.API.CONSUMER.MSG.NEXT.{consumer.stream}.{consumer.name}",
        f"$JS.ACK.{consumer.stream}.{consumer.name}.>",
    )


def _may_answer(*askers: str) -> tuple[str, ...]:
    return tuple(f"_INBOX.{asker}.>" for asker in ("operator", *askers))


_MAY_VERIFY = (VERIFY_KEY, *(f"$JS.API.CONSUMER.CREATE.{EVENTS.name}.*.{subject}" for subject in REVOCATIONS))
"""For whoever verifies credentials: ask about API keys, follow revocations with consumers of one's own."""
_DECLARED = tuple(f"$JS.API.CONSUMER.CREATE.{each.stream}.{each.name}.>" for each in CONSUMERS)
"""To create a consumer that is there is to change what it gets: the declared ones are not for those who follow."""

AUTH = Account(
    name="auth",
    description="The auth service, API and worker",
    publish=(
        "events.auth.*.*",
        *_may_consume(AUTH_ENTITLEMENTS),
        *_MAY_VERIFY,
        *_may_answer("auth", "metering", "billing", "notifier"),
    ),
    subscribe=("_INBOX.auth.>", "rpc.auth.*"),
    publish_denied=_DECLARED,
)
METERING = Account(
    name="metering",
    description="The metering service, API and workers",
    publish=(
        "usage.recorded.*",
        "events.metering.*.*",
        UNREAD_ALERTS,
        *(
            subject
            for consumer in (*METERING_WORKERS, METERING_ENTITLEMENTS, METERING_ERASURES)
            for subject in _may_consume(consumer)
        ),
        *_MAY_VERIFY,
        *_may_answer("publisher"),
    ),
    subscribe=("_INBOX.metering.>", "rpc.metering.*"),
    publish_denied=_DECLARED,
)
BILLING = Account(
    name="billing",
    description="The billing service, API and worker",
    publish=(
        "events.billing.*.*",
        *_may_consume(BILLING_ORGANIZATIONS),
        *_may_consume(BILLING_USAGE_PERIODS),
        *_MAY_VERIFY,
    ),
    subscribe=("_INBOX.billing.>",),
    publish_denied=_DECLARED,
)
NOTIFIER = Account(
    name="notifier",
    description="The notifier service, API and worker",
    publish=(
        "events.notifier.*.*",
        *_may_consume(NOTIFIER_EVENTS),
        *_may_consume(NOTIFIER_PEOPLE),
        READ_MESSAGE,
        READ_CONTACTS,
        *_MAY_VERIFY,
        *_may_answer("metering"),
    ),
    subscribe=("_INBOX.notifier.>", "rpc.notifier.*"),
    publish_denied=_DECLARED,
)
ACCOUNTS = (
    Account(
        name="operator",
        description="Applies the topology, looks at lag; for people and for deployment jobs",
        publish=(">",),
        subscribe=(">",),
    ),
    AUTH,
    METERING,
    BILLING,
    NOTIFIER,
    Account(
        name="publisher",
        description="Services in any language that publish usage, and ask before they cause it, straight on the bus",
        publish=("usage.recorded.*", *(f"rpc.metering.{verb}" for verb in LIMIT_VERBS)),
        subscribe=("_INBOX.publisher.>",),
    ),
)
