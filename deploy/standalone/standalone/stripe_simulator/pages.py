"""The pages people see: Checkout, the customer portal, an invoice. Every page says that it is not Stripe."""

from typing import Any
from urllib.parse import parse_qsl

from fpdf import FPDF
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from standalone.stripe_simulator import cards, catalogue, changes, checkout, control
from standalone.stripe_simulator.clock import day_of
from standalone.stripe_simulator.problems import StripeProblem
from standalone.stripe_simulator.shapes import Thing, dollars
from standalone.stripe_simulator.world import World

_templates = Environment(
    loader=PackageLoader("standalone.stripe_simulator"), autoescape=True, undefined=StrictUndefined
)
_templates.filters |= {"dollars": dollars, "day": day_of}


def _page(template: str, status: int = 200, error: str = "", **more: Any) -> Response:
    html = _templates.get_template(template).render(cards=cards.TEST_CARDS, error=error, **more)
    return HTMLResponse(html, status)


def _world(request: Request) -> World:
    world: World = request.app.state.simulator.world
    world.by_hand()
    return world


async def _pressed(request: Request) -> dict[str, str]:
    return dict(parse_qsl((await request.body()).decode()))


def _not_found(problem: StripeProblem) -> Response:
    return HTMLResponse(f"<p>{problem}</p><p>(Stripe simulator: a stand-in for tests and demos.)</p>", problem.status)


async def front(request: Request) -> Response:
    """What there is."""
    world = _world(request)
    return _page(
        "front.html",
        customers=len(world.table("customer")),
        live=sum(control.live_subscriptions(world).values()),
        invoices=len(world.table("invoice")),
        events=len(world.events),
        now=world.time_of(),
    )


async def pay_checkout(request: Request) -> Response:
    """The Checkout page and its two buttons."""
    world, session_id, error = _world(request), request.path_params["id"], ""
    try:
        session = world.get("checkout.session", session_id)
        if request.method == "POST":
            pressed = await _pressed(request)
            chosen = "pm_card_chargeDeclinedInsufficientFunds" if pressed["press"] == "decline" else pressed["card"]
            checkout.complete(world, session_id, cards.card_named(chosen), pressed.get("email"))
            to = (session["success_url"] or "/").replace("{CHECKOUT_SESSION_ID}", session_id)
            return RedirectResponse(to, 303)
    except StripeProblem as problem:
        if session_id not in world.table("checkout.session"):
            return _not_found(problem)
        error = str(problem)
    customer = world.table("customer").get(session["customer"] or "", {})
    return _page(
        "checkout.html",
        402 if error else 200,
        error,
        session=session,
        items=world.orders[session_id]["line_items"],
        email=session["customer_email"] or customer.get("email") or "",
    )


async def portal(request: Request) -> Response:
    """The customer portal: cancel, keep, another card."""
    world, error = _world(request), ""
    try:
        session = world.get("billing_portal.session", request.path_params["id"])
    except StripeProblem as problem:
        return _not_found(problem)
    customer = world.get("customer", session["customer"])
    if request.method == "POST":
        pressed = await _pressed(request)
        try:
            _press(world, customer, pressed)
            return RedirectResponse(request.url.path, 303)
        except StripeProblem as problem:
            error = str(problem)
    held = world.where("subscription", customer=customer["id"])[::-1]
    invoices = [one for one in world.where("invoice", customer=customer["id"]) if one["number"]]
    method = cards.payer(world, customer, *[one["default_payment_method"] for one in held])
    return _page(
        "portal.html",
        402 if error else 200,
        error,
        subscriptions=[_shown(world, one) for one in held],
        invoices=invoices[::-1],
        card=method and method["card"],
        return_url=session["return_url"],
    )


def _press(world: World, customer: Thing, pressed: dict[str, str]) -> None:
    if pressed["press"] == "card":
        checkout.portal_card(world, customer["id"], cards.card_named(pressed["card"]))
        return
    subscription = world.get("subscription", pressed["subscription"])
    if subscription["customer"] == customer["id"]:
        press = {"cancel": checkout.portal_cancel, "resume": checkout.portal_resume}[pressed["press"]]
        press(world, subscription["id"])


def _shown(world: World, subscription: Thing) -> Thing:
    names = [catalogue.named(world, item["price"]) for item in subscription["items"]["data"]]
    return subscription | {"name": ", ".join(names), "renews": changes.period_of(subscription)[1]}


async def invoice(request: Request) -> Response:
    """The hosted invoice page, where an open invoice can be paid with its cardholder present."""
    world, error = _world(request), ""
    try:
        thing = world.get("invoice", request.path_params["id"])
    except StripeProblem as problem:
        return _not_found(problem)
    if request.method == "POST":
        try:
            control.pay_in_person(world, thing, (await _pressed(request)).get("card"))
            return RedirectResponse(request.url.path, 303)
        except StripeProblem as problem:
            error = str(problem)
    return _page("invoice.html", 402 if error else 200, error, invoice=thing)


async def invoice_pdf(request: Request) -> Response:
    """The invoice as a small PDF."""
    try:
        thing = _world(request).get("invoice", request.path_params["id"])
    except StripeProblem as problem:
        return _not_found(problem)
    pdf = FPDF()
    pdf.add_page()
    pdf.set_font("Helvetica", size=11)
    rows = [
        "Stripe simulator: a stand-in for tests and demos. Nothing was charged.",
        f"Invoice {thing['number']}, {day_of(thing['created'])}: {thing['status']}",
        "",
        *[f"{line['description']}: {dollars(line['amount'])}" for line in thing["lines"]["data"]],
        f"Total: {dollars(thing['total'])}",
    ]
    for row in rows:
        pdf.multi_cell(0, 7, row.encode("latin-1", "replace").decode("latin-1"), new_x="LMARGIN", new_y="NEXT")
    return Response(bytes(pdf.output()), media_type="application/pdf")


_both = ["GET", "POST"]
routes = [
    Route("/", front),
    Route("/checkout/{id}", pay_checkout, methods=_both),
    Route("/portal/{id}", portal, methods=_both),
    Route("/invoice/{id}", invoice, methods=_both),
    Route("/invoice/{id}/pdf", invoice_pdf),
]
