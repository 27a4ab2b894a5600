"""The table of every route of every service: for whom it is. A route that is not in it fails the walk."""

from every_route import (
    ADMIN_READERS,
    ADMINS,
    ADMINS_IN_PERSON,
    ANY_CREDENTIAL,
    CHECKERS,
    DECIDERS,
    IN_PERSON,
    MEMBERS,
    OPERATORS,
    OWNERS,
    PEOPLE,
    PRICE_READERS,
    PUBLIC,
    READERS,
    SUBSCRIBERS,
    THEMSELF,
    WRITERS,
    Entry,
)

PASSWORD = {"password": "{password}"}
IN_ORG = {"org_id": "{org_id}"}
DEBATE = {"event_type": "debate", "provider": "anthropic", "model": "claude-sonnet-4"}
PLAN = {"plan": "professional"}
NO_PLAN = {"plan": "no-such-plan"}

OPERATIONS = [
    Entry(PUBLIC, "GET", "/healthz"),
    Entry(PUBLIC, "GET", "/readyz"),
    Entry(PUBLIC, "GET", "/metrics"),
    Entry(PUBLIC, "GET", "/openapi.json"),
    Entry(PUBLIC, "GET", "/docs"),
    Entry(PUBLIC, "GET", "/docs/oauth2-redirect"),
    Entry(PUBLIC, "GET", "/redoc"),
    Entry(PUBLIC, "GET", "/", 307),
]
ACCOUNTS = [
    Entry(
        PUBLIC,
        "POST",
        "/api/auth/register",
        201,
        body={"email": "{new}@example.com", "password": "{password}", "name": "Somebody"},
    ),
    Entry(PUBLIC, "POST", "/api/auth/login", body={"email": "{email}", "password": "{password}"}),
    Entry(PUBLIC, "POST", "/api/auth/refresh", 422, body={}),
    Entry(PUBLIC, "POST", "/api/auth/forgot-password", 202, body={"email": "{new}@example.com"}),
    Entry(PUBLIC, "POST", "/api/auth/reset-password", 422, body={"token": "no letter's", "password": "{password}"}),
    Entry(PUBLIC, "POST", "/api/auth/verify-email", 422, body={"token": "no letter's"}),
    Entry(PUBLIC, "GET", "/.well-known/jwks.json"),
    Entry(ANY_CREDENTIAL, "GET", "/api/auth/verify"),
    Entry(PEOPLE, "GET", "/api/auth/me"),
    Entry(PEOPLE, "PATCH", "/api/auth/me", body={"name": "Another Name"}),
    Entry(PEOPLE, "GET", "/api/auth/me/export"),
    Entry(PEOPLE, "DELETE", "/api/auth/me", 422, body={}),
    Entry(PEOPLE, "POST", "/api/auth/verify-email/resend", (202, 429)),
    Entry(
        PEOPLE,
        "POST",
        "/api/auth/change-password",
        422,
        body={"current_password": "{password}", "new_password": "password"},
    ),
    Entry(PEOPLE, "POST", "/api/auth/2fa/enable", 409, body={"code": "000000"}),
    Entry(PEOPLE, "POST", "/api/auth/2fa/recovery-codes", 409, body=PASSWORD),
    Entry(PEOPLE, "POST", "/api/auth/2fa/disable", body=PASSWORD),
    Entry(PEOPLE, "POST", "/api/auth/2fa/setup", body=PASSWORD),
    Entry(PEOPLE, "GET", "/api/auth/sessions"),
    Entry(PEOPLE, "DELETE", "/api/auth/sessions/{session_id}", 404),
    Entry(PEOPLE, "GET", "/api/auth/audit"),
    Entry(PEOPLE, "POST", "/api/auth/revoke", 422, body={"token": "nobody's"}),
    Entry(PEOPLE, "POST", "/api/auth/logout", ends_session=True),
    Entry(PEOPLE, "POST", "/api/auth/logout-all", ends_session=True),
    Entry(IN_PERSON, "POST", "/api/auth/switch-organization", body=IN_ORG),
    Entry(OPERATORS, "POST", "/api/auth/users/{user_id}/revoke", body={}, where={"user_id": "bystander"}),
    Entry(OPERATORS, "POST", "/api/auth/users/{user_id}/unlock", where={"user_id": "bystander"}),
    Entry(OPERATORS, "POST", "/api/auth/users/{user_id}/disable-2fa", where={"user_id": "bystander"}),
    Entry(OPERATORS, "POST", "/api/auth/users/find", 404, body={"email": "nobody@example.com"}),
    Entry(OPERATORS, "POST", "/api/auth/users/find", body={"email": "{email}"}),
    Entry(OPERATORS, "POST", "/api/auth/users/{user_id}/disable-2fa", where={"user_id": "bystander"}),
    Entry(OPERATORS, "DELETE", "/api/auth/users/{user_id}", where={"user_id": "leaver"}),
]
KEYS = [
    Entry(
        ADMINS_IN_PERSON,
        "POST",
        "/api/auth/api-keys",
        201,
        body={"name": "a program", "scopes": ["usage.read"], "org_id": "{org_id}"},
    ),
    Entry(MEMBERS, "GET", "/api/auth/api-keys", query=IN_ORG),
    Entry(ADMINS, "DELETE", "/api/auth/api-keys/{key_id}", query=IN_ORG),
]
ORGANIZATIONS = [
    Entry(PEOPLE, "POST", "/api/organizations", 201, body={"name": "One More"}),
    Entry(PEOPLE, "GET", "/api/organizations"),
    Entry(MEMBERS, "GET", "/api/organizations/{org}"),
    Entry(ADMINS, "PATCH", "/api/organizations/{org}", body={"name": "Another Name"}),
    Entry(OWNERS, "POST", "/api/organizations/{org}/transfer", 404, body={"user_id": "{nobody}"}),
    Entry(OWNERS, "DELETE", "/api/organizations/{org}", 422, body={"slug": "not-its-slug"}),
    Entry(MEMBERS, "GET", "/api/organizations/{org}/members"),
    Entry(ADMINS, "PUT", "/api/organizations/{org}/members/{user_id}/role", body={"role": "member"}),
    Entry(ADMINS, "DELETE", "/api/organizations/{org}/members/{user_id}", 404, where={"user_id": "nobody"}),
    Entry(ADMINS, "GET", "/api/organizations/{org}/invitations"),
    Entry(ADMINS, "POST", "/api/organizations/{org}/invitations", 201, body={"email": "{new}@example.com"}),
    Entry(ADMINS, "DELETE", "/api/organizations/{org}/invitations/{invitation_id}", 404),
    Entry(PEOPLE, "POST", "/api/invitations/accept", 422, body={"token": "no letter's"}),
    Entry(ADMINS, "GET", "/api/organizations/{org}/audit"),
    # Of an organization to which the same people belong, and which nobody needs afterwards.
    Entry(IN_PERSON, "POST", "/api/organizations/{org}/leave", instead={"owner": 409}, where={"org": "elsewhere"}),
]
METERING = [
    Entry(
        WRITERS,
        "POST",
        "/api/usage/events",
        202,
        body={"id": "{new}", "org_id": "{org_id}", "occurred_at": "{now}", **DEBATE},
    ),
    Entry(READERS, "GET", "/api/usage/events", query=IN_ORG),
    Entry(ADMIN_READERS, "GET", "/api/usage/organizations/{org_id}/summary"),
    Entry(READERS, "GET", "/api/usage/periods", query=IN_ORG),
    Entry(ADMIN_READERS, "GET", "/api/usage/budgets", query=IN_ORG),
    Entry(
        DECIDERS,
        "PUT",
        "/api/usage/budgets/{budget_id}",
        body={"amount_usd": "100", "user_id": "{user_id}"},
        query=IN_ORG,
        where={"budget_id": "user_id"},
    ),
    Entry(DECIDERS, "DELETE", "/api/usage/budgets/{budget_id}", 404, query=IN_ORG, where={"budget_id": "nobody"}),
    Entry(READERS, "GET", "/api/subscription/usage/{user_id}", query=IN_ORG),
    Entry(READERS, "GET", "/api/subscription/usage/{user_id}/trends", query=IN_ORG),
    Entry(READERS, "GET", "/api/subscription/dashboard/{user_id}", query=IN_ORG),
    Entry(PRICE_READERS, "GET", "/api/subscription/pricing"),
    Entry(CHECKERS, "POST", "/api/usage/limits/check", body={"org_id": "{org_id}", "operations": [DEBATE]}),
    Entry(WRITERS, "POST", "/api/usage/reservations", 201, body={"org_id": "{org_id}", "operations": [DEBATE]}),
    Entry(WRITERS, "POST", "/api/usage/reservations/{reservation_id}/release", 404, query=IN_ORG),
    Entry(
        WRITERS, "POST", "/api/usage/reservations/{reservation_id}/extend", 404, body={"ttl_seconds": 9}, query=IN_ORG
    ),
    Entry(WRITERS, "GET", "/api/usage/reservations/{reservation_id}", 404, query=IN_ORG),
    Entry(OPERATORS, "GET", "/api/usage/dead-letters"),
    Entry(OPERATORS, "GET", "/api/usage/dead-letters/{letter_id}", 404),
    Entry(OPERATORS, "POST", "/api/usage/dead-letters/{letter_id}/retry", 404),
    Entry(OPERATORS, "POST", "/api/usage/dead-letters/{letter_id}/discard", 404),
]
_SUBSCRIPTION = "/api/subscription/organizations/{org_id}/subscription"
BILLING = [
    Entry(ANY_CREDENTIAL, "GET", "/api/subscription/plans"),
    Entry(READERS, "GET", "/api/subscription/user/{user_id}/subscription", query=IN_ORG),
    Entry(SUBSCRIBERS, "GET", _SUBSCRIPTION),
    Entry(OPERATORS, "PUT", _SUBSCRIPTION, body=PLAN),
    Entry(DECIDERS, "POST", _SUBSCRIPTION + "/change", 422, body=NO_PLAN),
    Entry(DECIDERS, "POST", _SUBSCRIPTION + "/cancel", (200, 409)),
    Entry(DECIDERS, "POST", _SUBSCRIPTION + "/resume", (200, 409)),
    Entry(OPERATORS, "POST", _SUBSCRIPTION + "/trial", 422, body=NO_PLAN),
    Entry(OPERATORS, "POST", _SUBSCRIPTION + "/comp", 422, body=NO_PLAN),
    Entry(OPERATORS, "POST", _SUBSCRIPTION + "/move", (200, 409)),
    Entry(OPERATORS, "POST", "/api/subscription/plans/{plan}", 422, body={}),
    Entry(OPERATORS, "GET", "/api/subscription/plans/{plan}/versions"),
    Entry(OPERATORS, "POST", "/api/subscription/plans/{plan}/retire", 404, where={"plan": "no_plan"}),
]
_PAGE = "https://app.example.com/billing"
_TO_BUY = {**NO_PLAN, "success_url": _PAGE, "cancel_url": _PAGE}
PAYMENTS = [
    Entry(PUBLIC, "POST", "/api/webhooks/stripe", 400, body={}),
    Entry(DECIDERS, "POST", "/api/billing/checkout", 422, body=_TO_BUY, query=IN_ORG),
    Entry(DECIDERS, "POST", "/api/billing/portal", 409, body={"return_url": _PAGE}, query=IN_ORG),
    Entry(DECIDERS, "POST", "/api/billing/preview", 422, body=NO_PLAN, query=IN_ORG),
    Entry(ADMIN_READERS, "GET", "/api/billing/payment-method", query=IN_ORG),
    Entry(READERS, "GET", "/api/billing/subscription", query=IN_ORG),
    Entry(OPERATORS, "GET", "/api/billing/stripe/events"),
    Entry(OPERATORS, "POST", "/api/billing/stripe/events/{event_id}/retry", 404, where={"event_id": "nobody"}),
    Entry(OPERATORS, "GET", "/api/billing/stripe/intents"),
    Entry(OPERATORS, "POST", "/api/billing/stripe/reconcile", 409),
]
_NO_INVOICE = {"invoice_id": "nobody"}
_BILLED = "/api/billing/organizations/{org_id}"
INVOICES = [
    Entry(READERS, "GET", "/api/billing/invoices", query=IN_ORG),
    Entry(READERS, "GET", "/api/billing/invoices/{invoice_id}", 404, query=IN_ORG, where=_NO_INVOICE),
    Entry(READERS, "GET", "/api/billing/invoices/{invoice_id}/html", 404, query=IN_ORG, where=_NO_INVOICE),
    Entry(READERS, "GET", "/api/billing/invoices/{invoice_id}/pdf", 404, query=IN_ORG, where=_NO_INVOICE),
    Entry(READERS, "GET", "/api/billing/history", query=IN_ORG),
    Entry(READERS, "GET", "/api/billing/usage-charges", query=IN_ORG),
    Entry(READERS, "GET", "/api/billing/balance", query=IN_ORG),
    Entry(DECIDERS, "POST", "/api/billing/coupons/redeem", 404, body={"code": "NO-SUCH"}, query=IN_ORG),
    Entry(OPERATORS, "POST", "/api/billing/coupons", 422, body={}),
    Entry(OPERATORS, "GET", "/api/billing/coupons"),
    Entry(OPERATORS, "POST", _BILLED + "/credits", 422, body={}),
    Entry(OPERATORS, "PUT", _BILLED + "/terms", 422, body={}),
    Entry(OPERATORS, "GET", _BILLED + "/terms", 404),
    Entry(OPERATORS, "DELETE", _BILLED + "/terms", 404),
    Entry(OPERATORS, "POST", _BILLED + "/payments", 422, body={}),
    Entry(OPERATORS, "POST", _BILLED + "/invoices/{invoice_id}/void", 404, where=_NO_INVOICE),
]
_ALERTS = "/api/subscription/alerts"
_NO_ALERT = {"alert_id": "nobody"}
_PREFERENCES = "/api/notifications/organizations/{org_id}/preferences"
_ENDPOINTS = "/api/notifications/endpoints"
_ENDPOINT = _ENDPOINTS + "/{endpoint_id}"
_DELIVERY = _ENDPOINT + "/deliveries/{delivery_id}"
_NO_ENDPOINT = {"endpoint_id": "nobody", "delivery_id": "nobody"}
_UNSUBSCRIBE = "/api/notifications/unsubscribe/{token}"
_NO_TOKEN = {"token": "nobody"}
NOTIFIER = [
    Entry(READERS, "GET", _ALERTS + "/{user_id}", query=IN_ORG),
    # A good answer goes on for as long as one listens.
    Entry(READERS, "GET", _ALERTS + "/{user_id}/stream", 422, query=IN_ORG | {"after": "no position"}),
    Entry(
        SUBSCRIBERS,
        "POST",
        _ALERTS + "/{alert_id}/mark-read",
        404,
        query=IN_ORG,
        instead={"service": 422},
        where=_NO_ALERT,
    ),
    Entry(THEMSELF, "POST", _ALERTS + "/{user_id}/mark-all-read", query=IN_ORG),
    Entry(OPERATORS, "GET", "/api/notifications/attention"),
    Entry(ANY_CREDENTIAL, "GET", "/api/notifications/kinds"),
    Entry(PEOPLE, "GET", "/api/notifications/preferences"),
    Entry(PEOPLE, "PUT", "/api/notifications/preferences", body={"kinds": {}}),
    Entry(DECIDERS, "GET", _PREFERENCES),
    Entry(DECIDERS, "PUT", _PREFERENCES, body={"kinds": {}}),
    Entry(DECIDERS, "POST", _ENDPOINTS, 422, body={"url": "https://10.0.0.1/"}, query=IN_ORG),
    Entry(DECIDERS, "GET", _ENDPOINTS, query=IN_ORG),
    Entry(DECIDERS, "GET", _ENDPOINT, 404, query=IN_ORG, where=_NO_ENDPOINT),
    Entry(DECIDERS, "PATCH", _ENDPOINT, 404, body={}, query=IN_ORG, where=_NO_ENDPOINT),
    Entry(DECIDERS, "DELETE", _ENDPOINT, 404, query=IN_ORG, where=_NO_ENDPOINT),
    Entry(DECIDERS, "POST", _ENDPOINT + "/rotate-secret", 404, body={}, query=IN_ORG, where=_NO_ENDPOINT),
    Entry(DECIDERS, "POST", _ENDPOINT + "/test", 404, query=IN_ORG, where=_NO_ENDPOINT),
    Entry(DECIDERS, "POST", _ENDPOINT + "/disable", 404, query=IN_ORG, where=_NO_ENDPOINT),
    Entry(DECIDERS, "POST", _ENDPOINT + "/enable", 404, query=IN_ORG, where=_NO_ENDPOINT),
    Entry(DECIDERS, "GET", _ENDPOINT + "/deliveries", 404, query=IN_ORG, where=_NO_ENDPOINT),
    Entry(DECIDERS, "GET", _DELIVERY, 404, query=IN_ORG, where=_NO_ENDPOINT),
    Entry(DECIDERS, "POST", _DELIVERY + "/redeliver", 404, query=IN_ORG, where=_NO_ENDPOINT),
    Entry(DECIDERS, "POST", _DELIVERY + "/skip", 404, query=IN_ORG, where=_NO_ENDPOINT),
    Entry(DECIDERS, "POST", _ENDPOINT + "/redeliver", 404, body={"since": "{now}"}, query=IN_ORG, where=_NO_ENDPOINT),
    Entry(OPERATORS, "POST", "/api/notifications/suppressions", body={"email": "{new}@example.com"}),
    Entry(OPERATORS, "POST", "/api/notifications/suppressions/release", body={"email": "{new}@example.com"}),
    Entry(PUBLIC, "GET", "/letters/{letter}"),
    Entry(PUBLIC, "GET", _UNSUBSCRIBE, 404, where=_NO_TOKEN),
    Entry(PUBLIC, "POST", _UNSUBSCRIBE, 404, where=_NO_TOKEN),
    Entry(PUBLIC, "POST", _UNSUBSCRIBE + "/undo", 404, query={"kind": "limit.reached"}, where=_NO_TOKEN),
]
TABLE = {
    entry.route: entry
    for entry in [*OPERATIONS, *ACCOUNTS, *KEYS, *ORGANIZATIONS, *METERING, *BILLING, *PAYMENTS, *INVOICES, *NOTIFIER]
}
"""In the order in which they are asked where several are asked of one world."""
