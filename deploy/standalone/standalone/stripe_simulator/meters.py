"""Billing meters and the usage that is reported to them."""

from decimal import Decimal, InvalidOperation

import stripe

from standalone.stripe_simulator import invoice_lines
from standalone.stripe_simulator.clock import DAY, HOUR
from standalone.stripe_simulator.problems import invalid
from standalone.stripe_simulator.shapes import Thing, listed
from standalone.stripe_simulator.world import World


def create(world: World, params: Thing) -> Thing:
    """POST /v1/billing/meters."""
    if world.where("billing.meter", event_name=params["event_name"], status="active"):
        raise invalid("An active meter with this event name exists already.", "event_name", "resource_already_exists")
    now = world.time_of()
    meter = world.new(
        stripe.billing.Meter,
        "mtr_test",
        created=now,
        customer_mapping=params.get("customer_mapping") or {"event_payload_key": "stripe_customer_id", "type": "by_id"},
        default_aggregation=params["default_aggregation"],
        display_name=params["display_name"],
        event_name=params["event_name"],
        event_time_window=params.get("event_time_window"),
        status="active",
        status_transitions={"deactivated_at": None},
        updated=now,
        value_settings=params.get("value_settings") or {"event_payload_key": "value"},
    )
    world.emit("billing.meter.created", meter)
    return meter


def deactivate(world: World, _params: Thing, meter: str) -> Thing:
    """POST …/deactivate: its events are refused from now on."""
    thing = world.get("billing.meter", meter)
    with world.changing(thing, "billing.meter.deactivated", "billing.meter.updated"):
        thing |= {"status": "inactive", "status_transitions": {"deactivated_at": world.time_of()}}
    return thing


def record(world: World, params: Thing) -> Thing:
    """POST /v1/billing/meter_events: once per identifier, within 35 days back and 5 minutes ahead.

    Stripe takes events in and tells of faulty ones later, by an event; the simulator refuses them at once.
    """
    found = world.where("billing.meter", event_name=params["event_name"], status="active")
    if not found:
        raise invalid(f"No active meter found for event name {params['event_name']}.", "event_name")
    (meter,) = found
    payload = params["payload"]
    customer = world.alive("customer", payload.get(meter["customer_mapping"]["event_payload_key"], ""), "payload")
    now = world.time_of(customer)
    at = params.get("timestamp", now)
    if not now - 35 * DAY <= at <= now + 300:
        raise invalid(
            "The timestamp must be within the past 35 calendar days and not more than 5 minutes in the future.",
            "timestamp",
            "timestamp_too_far_in_past" if at < now else "timestamp_in_future",
        )
    value = payload.get(meter["value_settings"]["event_payload_key"], "1")
    try:
        exact = Decimal(value)
    except InvalidOperation:
        raise invalid("The value in the payload is not a number.", "payload", "meter_event_value_not_numeric") from None
    identifier = params.get("identifier") or world.new_id("mevt")
    seen = world.table("billing.meter_event")
    if identifier in seen and now - seen[identifier]["created"] < 35 * DAY:
        raise invalid(f"An event already exists with identifier {identifier}.", "identifier", "duplicate_meter_event")
    event = world.draft(stripe.billing.MeterEvent, identifier, created=now, event_name=params["event_name"])
    del event["id"]
    event |= {"identifier": identifier, "payload": payload, "timestamp": at}
    seen[identifier] = event
    if exact.is_finite():
        world.usage.setdefault((meter["id"], customer["id"]), []).append((at, str(value)))
    return event


def summaries(world: World, params: Thing, meter: str) -> Thing:
    """GET …/event_summaries: the sum in [start_time, end_time), or one for every hour or day of it."""
    thing = world.get("billing.meter", meter)
    start, end, customer = params["start_time"], params["end_time"], params["customer"]
    world.get("customer", customer, "customer")
    if start % 60 or end % 60:
        raise invalid("The start and end must be aligned with minute boundaries.", "start_time")
    width = {"hour": HOUR, "day": DAY, None: end - start}[params.get("value_grouping_window")]
    found = []
    for begin in range(start, end, max(width, 1)):
        period = (begin, min(begin + width, end))
        used = invoice_lines.usage_in(world, meter, customer, period)
        found.append(
            world.draft(
                stripe.billing.MeterEventSummary,
                f"mtrusg_{meter}_{customer}_{begin}_{width}",
                # Stripe sends a JSON number here.
                aggregated_value=int(used) if used == used.to_integral_value() else float(used),
                end_time=period[1],
                meter=thing["id"],
                start_time=period[0],
            )
        )
    return listed(f"/v1/billing/meters/{meter}/event_summaries", found[::-1])
