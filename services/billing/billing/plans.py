"""Plans and their versions: which there are, and when a new one is published. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from aragora.contracts.envelope import DomainEvent
from aragora.contracts.events import PlanPublished
from aragora.contracts.plans import Plan

Source = Literal["catalog", "operator"]


class UnknownPlan(LookupError):
    """No plan has this id, or the plan has no such version. The message names those that there are."""


class PlanInUse(Exception):
    """The default plan cannot be retired: every new organization gets it. Make another one the default first."""


class Plans:
    """Every version of every plan that was ever published."""

    def __init__(self, versions: Iterable[Plan]) -> None:
        self._versions: dict[tuple[str, int], Plan] = {}
        self._current: dict[str, Plan] = {}
        for plan in versions:
            self._versions[plan.plan, plan.version] = plan
            if plan.plan not in self._current or self._current[plan.plan].version < plan.version:
                self._current[plan.plan] = plan

    @property
    def ids(self) -> list[str]:
        """Of every plan, retired ones too."""
        return sorted(self._current)

    @property
    def listed(self) -> list[Plan]:
        """The current versions that people may choose, up the ladder."""
        return sorted((one for one in self._current.values() if one.listed), key=lambda one: (one.rank, one.plan))

    @property
    def default(self) -> Plan:
        """What every new organization gets."""
        for plan in self._current.values():
            if plan.is_default:
                return plan
        raise UnknownPlan("no plan is published yet; run `billing migrate`")

    @property
    def next_rank(self) -> int:
        """The place above all others."""
        return max((plan.rank for plan in self._current.values()), default=-1) + 1

    def current(self, plan: str) -> Plan:
        """The version that is sold now."""
        try:
            return self._current[plan]
        except KeyError:
            raise UnknownPlan(f"no plan is called {plan!r}; there are {', '.join(sorted(self._current))}") from None

    def version(self, plan: str, version: int) -> Plan:
        """The version that somebody was sold."""
        try:
            return self._versions[plan, version]
        except KeyError:
            raise UnknownPlan(f"plan {plan!r} has no version {version}; the current one is "
                              f"{self.current(plan).version}") from None  # fmt: skip

    def versions(self, plan: str) -> list[Plan]:
        """All versions of a plan, the newest first."""
        return [self._versions[plan, number] for number in range(self.current(plan).version, 0, -1)]


@dataclass(frozen=True, slots=True)
class History:
    """What was published of one plan: the latest version, who published it, and the latest of the catalog's."""

    latest: Plan | None = None
    source: Source = "catalog"
    from_catalog: Plan | None = None


def evolve(history: History, event: DomainEvent) -> History:
    """What was published, with this event."""
    if not isinstance(event, PlanPublished):
        return history
    from_catalog = event.plan if event.source == "catalog" else history.from_catalog
    return History(event.plan, event.source, from_catalog)


def publish_from_catalog(history: History, wanted: Plan) -> list[DomainEvent]:
    """Publish the catalog's plan if the catalog says something else than the last time.

    What an operator has published since then stays when the catalog says the same as before.
    """
    if history.from_catalog is not None and _same(history.from_catalog, wanted):
        return []
    return [_next(history, wanted)]


def withdraw_from_catalog(history: History) -> list[DomainEvent]:
    """Retire a plan that the catalog no longer has."""
    last = history.from_catalog
    if last is None or history.latest is None or not (last.listed or last.is_default):
        return []
    gone = history.latest.model_copy(update={"listed": False, "is_default": False})
    return [_next(history, gone)]


def publish_by_operator(history: History, wanted: Plan) -> list[DomainEvent]:
    """Publish what an operator wrote, unless it is what is sold already."""
    if history.latest is not None and _same(history.latest, wanted):
        return []
    return [_next(history, wanted, source="operator")]


def retire(history: History) -> list[DomainEvent]:
    """Take a plan off the list. Who has it keeps it.

    Raises:
        PlanInUse: it is the default plan.
    """
    if history.latest is None or not history.latest.listed:
        return []
    if history.latest.is_default:
        raise PlanInUse(f"{history.latest.plan} is what every new organization gets; it cannot be retired")
    return [_next(history, history.latest.model_copy(update={"listed": False}), source="operator")]


def announce(history: History) -> list[DomainEvent]:
    """Say once more which version is sold."""
    return [PlanPublished(plan=history.latest, source=history.source)] if history.latest else []


def _next(history: History, plan: Plan, *, source: Source = "catalog") -> PlanPublished:
    version = history.latest.version + 1 if history.latest else 1
    return PlanPublished(plan=plan.model_copy(update={"version": version}), source=source)


def _same(one: Plan, other: Plan) -> bool:
    return one.model_copy(update={"version": other.version}) == other
