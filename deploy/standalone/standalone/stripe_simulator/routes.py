"""Every request the simulator answers: the method, the path, the SDK's type of its parameters, and who does it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import stripe
from stripe import params as of
from stripe.params import billing, billing_portal, test_helpers
from stripe.params import checkout as of_checkout

from standalone.stripe_simulator import (
    beginnings,
    cancellations,
    cards,
    catalogue,
    checkout,
    collection,
    customers,
    invoices,
    lists,
    meters,
    payments,
    previews,
    subscriptions,
)
from standalone.stripe_simulator.fields import store
from standalone.stripe_simulator.problems import invalid
from standalone.stripe_simulator.shapes import Thing
from standalone.stripe_simulator.world import World

Deed = Callable[..., Thing]


@dataclass(frozen=True, slots=True)
class Route:
    """`path` has `*` where an id stands; the ids are the deed's last arguments, in order."""

    method: str
    path: str
    kind: Any
    deed: Deed


def _retrieved(object_name: str) -> Deed:
    return lambda world, _params, object_id: world.get(object_name, object_id)


def _listed(object_name: str) -> Deed:
    url = f"/v1/{object_name.replace('.', '/')}s"
    return lambda world, params: lists.page(world, object_name, params, url)


def _updated(object_name: str, kind: type, event_type: str) -> Deed:
    def update(world: World, params: Thing, object_id: str) -> Thing:
        thing = world.get(object_name, object_id)
        with world.changing(thing, event_type):
            store(thing, params, kind)
        return thing

    return update


def _deleted(object_name: str, event_type: str = "") -> Deed:
    def delete(world: World, _params: Thing, object_id: str) -> Thing:
        thing = world.alive(object_name, object_id)
        if event_type:
            world.emit(event_type, thing)
        del world.table(object_name)[object_id]
        return {"id": object_id, "object": object_name, "deleted": True}

    return delete


def _attach(world: World, params: Thing, method_id: str) -> Thing:
    return cards.attach(world, method_id, world.alive("customer", params.get("customer", ""), "customer"))


def _detach(world: World, _params: Thing, method_id: str) -> Thing:
    return cards.detach(world, world.get("payment_method", method_id))


def _delete_item(world: World, _params: Thing, item_id: str) -> Thing:
    item = world.alive("invoiceitem", item_id)
    if item["invoice"]:
        raise invalid("You cannot delete an invoice item that is on an invoice.", "invoiceitem")
    world.emit("invoiceitem.deleted", item)
    emptied: Thing = {"id": item_id, "object": "invoiceitem", "deleted": True}
    world.table("invoiceitem")[item_id] = emptied
    return emptied


def _lines(world: World, params: Thing, invoice: str) -> Thing:
    held = world.get("invoice", invoice)["lines"]
    return lists.page(world, "line_item", params, held["url"], held["data"])


def _session_items(world: World, params: Thing, session: str) -> Thing:
    world.get("checkout.session", session)
    held = checkout.line_items(world, session)
    return lists.page(world, "item", params, held["url"], held["data"])


def _of_customer(object_name: str) -> Deed:
    def listing(world: World, params: Thing, customer: str) -> Thing:
        world.get("customer", customer)
        url = f"/v1/customers/{customer}/{object_name.removeprefix('customer_')}s"
        return lists.page(world, object_name, params, url, world.where(object_name, customer=customer)[::-1])

    return listing


def _balance_transaction(world: World, _params: Thing, _customer: str, entry: str) -> Thing:
    return world.get("customer_balance_transaction", entry)


def _create_endpoint(world: World, params: Thing) -> Thing:
    return create_endpoint(world, params, f"whsec_simulator{world.seed}{len(world.table('webhook_endpoint')) + 1}")


def create_endpoint(world: World, params: Thing, secret: str) -> Thing:
    """An endpoint that webhooks go to, signed with that secret; the answer shows it, later ones do not."""
    endpoint = world.new(stripe.WebhookEndpoint, "we", created=world.time_of(), status="enabled")
    store(endpoint, params, stripe.WebhookEndpoint)
    world.secrets[endpoint["id"]] = secret
    return endpoint | {"secret": secret}


def _reads(object_name: str, retrieve: Any, listing: Any) -> list[Route]:
    path = f"/v1/{object_name.replace('.', '/')}s"
    return [
        Route("GET", f"{path}/*", retrieve, _retrieved(object_name)),
        Route("GET", path, listing, _listed(object_name)),
    ]


_CLOCKS, _METERS, _SESSIONS = "/v1/test_helpers/test_clocks", "/v1/billing/meters", "/v1/checkout/sessions"


@cache
def routes() -> tuple[Route, ...]:
    """The table. Made when it is first asked for: the SDK loads its types as they are named."""
    return (
        *_reads("product", of.ProductRetrieveParams, of.ProductListParams),
        Route("POST", "/v1/products", of.ProductCreateParams, catalogue.create_product),
        Route("POST", "/v1/products/*", of.ProductUpdateParams, catalogue.update_product),
        Route("DELETE", "/v1/products/*", of.ProductDeleteParams, _deleted("product", "product.deleted")),
        *_reads("price", of.PriceRetrieveParams, of.PriceListParams),
        Route("POST", "/v1/prices", of.PriceCreateParams, catalogue.create_price),
        Route("POST", "/v1/prices/*", of.PriceUpdateParams, catalogue.update_price),
        *_reads("customer", of.CustomerRetrieveParams, of.CustomerListParams),
        Route("POST", "/v1/customers", of.CustomerCreateParams, customers.create),
        Route("POST", "/v1/customers/*", of.CustomerUpdateParams, customers.update),
        Route("DELETE", "/v1/customers/*", of.CustomerDeleteParams, cancellations.delete_customer),
        Route(
            "POST",
            "/v1/customers/*/balance_transactions",
            of.CustomerBalanceTransactionCreateParams,
            customers.create_balance_transaction,
        ),
        Route(
            "GET",
            "/v1/customers/*/balance_transactions",
            of.CustomerBalanceTransactionListParams,
            _of_customer("customer_balance_transaction"),
        ),
        Route(
            "GET",
            "/v1/customers/*/balance_transactions/*",
            of.CustomerBalanceTransactionRetrieveParams,
            _balance_transaction,
        ),
        Route(
            "GET", "/v1/customers/*/payment_methods", of.CustomerPaymentMethodListParams, _of_customer("payment_method")
        ),
        *_reads("payment_method", of.PaymentMethodRetrieveParams, of.PaymentMethodListParams),
        Route("POST", "/v1/payment_methods", of.PaymentMethodCreateParams, cards.create),
        Route("POST", "/v1/payment_methods/*/attach", of.PaymentMethodAttachParams, _attach),
        Route("POST", "/v1/payment_methods/*/detach", of.PaymentMethodDetachParams, _detach),
        *_reads("subscription", of.SubscriptionRetrieveParams, of.SubscriptionListParams),
        Route("POST", "/v1/subscriptions", of.SubscriptionCreateParams, beginnings.create),
        Route("POST", "/v1/subscriptions/*", of.SubscriptionUpdateParams, subscriptions.update),
        Route("DELETE", "/v1/subscriptions/*", of.SubscriptionCancelParams, cancellations.cancel),
        Route("POST", "/v1/invoices/create_preview", of.InvoiceCreatePreviewParams, previews.create),
        *_reads("invoice", of.InvoiceRetrieveParams, of.InvoiceListParams),
        Route("POST", "/v1/invoices", of.InvoiceCreateParams, collection.create),
        Route("POST", "/v1/invoices/*", of.InvoiceUpdateParams, invoices.update),
        Route("DELETE", "/v1/invoices/*", of.InvoiceDeleteParams, collection.delete),
        Route("POST", "/v1/invoices/*/finalize", of.InvoiceFinalizeInvoiceParams, collection.finalize),
        Route("POST", "/v1/invoices/*/pay", of.InvoicePayParams, collection.pay),
        Route("POST", "/v1/invoices/*/void", of.InvoiceVoidInvoiceParams, collection.void),
        Route(
            "POST",
            "/v1/invoices/*/mark_uncollectible",
            of.InvoiceMarkUncollectibleParams,
            collection.mark_uncollectible,
        ),
        Route("GET", "/v1/invoices/*/lines", of.InvoiceListLinesParams, _lines),
        *_reads("invoice_payment", of.InvoicePaymentRetrieveParams, of.InvoicePaymentListParams),
        *_reads("invoiceitem", of.InvoiceItemRetrieveParams, of.InvoiceItemListParams),
        Route("POST", "/v1/invoiceitems", of.InvoiceItemCreateParams, collection.create_item),
        Route("DELETE", "/v1/invoiceitems/*", of.InvoiceItemDeleteParams, _delete_item),
        *_reads("payment_intent", of.PaymentIntentRetrieveParams, of.PaymentIntentListParams),
        *_reads("charge", of.ChargeRetrieveParams, of.ChargeListParams),
        *_reads("refund", of.RefundRetrieveParams, of.RefundListParams),
        Route("POST", "/v1/refunds", of.RefundCreateParams, payments.create_refund),
        *_reads("dispute", of.DisputeRetrieveParams, of.DisputeListParams),
        *_reads("event", of.EventRetrieveParams, of.EventListParams),
        *_reads("checkout.session", of_checkout.SessionRetrieveParams, of_checkout.SessionListParams),
        Route("POST", _SESSIONS, of_checkout.SessionCreateParams, checkout.create),
        Route("POST", f"{_SESSIONS}/*", of_checkout.SessionUpdateParams, checkout.update),
        Route("POST", f"{_SESSIONS}/*/expire", of_checkout.SessionExpireParams, checkout.expire),
        Route("GET", f"{_SESSIONS}/*/line_items", of_checkout.SessionListLineItemsParams, _session_items),
        Route("POST", "/v1/billing_portal/sessions", billing_portal.SessionCreateParams, checkout.create_portal),
        *_reads("billing.meter", billing.MeterRetrieveParams, billing.MeterListParams),
        Route("POST", _METERS, billing.MeterCreateParams, meters.create),
        Route("POST", f"{_METERS}/*/deactivate", billing.MeterDeactivateParams, meters.deactivate),
        Route("GET", f"{_METERS}/*/event_summaries", billing.MeterListEventSummariesParams, meters.summaries),
        Route("POST", "/v1/billing/meter_events", billing.MeterEventCreateParams, meters.record),
        *_reads("test_helpers.test_clock", test_helpers.TestClockRetrieveParams, test_helpers.TestClockListParams),
        Route("POST", _CLOCKS, test_helpers.TestClockCreateParams, customers.create_test_clock),
        Route("POST", f"{_CLOCKS}/*/advance", test_helpers.TestClockAdvanceParams, customers.advance_test_clock),
        Route("DELETE", f"{_CLOCKS}/*", test_helpers.TestClockDeleteParams, _deleted("test_helpers.test_clock")),
        *_reads("webhook_endpoint", of.WebhookEndpointRetrieveParams, of.WebhookEndpointListParams),
        Route("POST", "/v1/webhook_endpoints", of.WebhookEndpointCreateParams, _create_endpoint),
        Route(
            "POST",
            "/v1/webhook_endpoints/*",
            of.WebhookEndpointUpdateParams,
            _updated("webhook_endpoint", stripe.WebhookEndpoint, ""),
        ),
        Route("DELETE", "/v1/webhook_endpoints/*", of.WebhookEndpointDeleteParams, _deleted("webhook_endpoint")),
    )


def route_of(method: str, path: str) -> tuple[Route, list[str]] | None:
    """The route of a request, and the ids in its path."""
    parts = path.strip("/").split("/")
    for route, pattern in _patterns().get((method, len(parts)), ()):
        if all(want in ("*", part) for want, part in zip(pattern, parts, strict=True)):
            return route, [part for want, part in zip(pattern, parts, strict=True) if want == "*"]
    return None


@cache
def _patterns() -> dict[tuple[str, int], list[tuple[Route, list[str]]]]:
    found: dict[tuple[str, int], list[tuple[Route, list[str]]]] = {}
    for route in routes():
        pattern = route.path.strip("/").split("/")
        found.setdefault((route.method, len(pattern)), []).append((route, pattern))
    return found
