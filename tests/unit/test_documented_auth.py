"""The examples of authentication, users and organizations, as they are documented. What they print is checked."""

# ruff: noqa: PLC0415 -- each example begins with its own imports

import json
from email.message import Message
from http.server import BaseHTTPRequestHandler

import pytest

from aragora.billing import revocation


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ARAGORA_JWT_SECRET", "a-secure-secret-key-of-32-bytes-or-more")
    monkeypatch.setenv("ARAGORA_JWT_EXPIRY_HOURS", "24")
    monkeypatch.setattr(revocation, "_INSTANCE", revocation.TokenBlacklist())


def test_tier_features(capsys: pytest.CaptureFixture[str]):
    from aragora.billing.models import TIER_LIMITS, SubscriptionTier

    # Get limits for a tier
    limits = TIER_LIMITS[SubscriptionTier.PROFESSIONAL]
    print(limits.debates_per_month)  # 200
    print(limits.api_access)  # True
    print(limits.all_agents)  # True

    assert capsys.readouterr().out == "200\nTrue\nTrue\n"


def test_jwt_tokens(capsys: pytest.CaptureFixture[str]):
    from aragora.billing.jwt_auth import (
        create_access_token,
        create_refresh_token,
        create_token_pair,
        validate_access_token,
    )

    # Create access token (24-hour default)
    token = create_access_token(
        user_id="user_123",
        email="user@example.com",
        org_id="org_456",
        role="admin",
    )

    # Create token pair (access + refresh)
    pair = create_token_pair(
        user_id="user_123",
        email="user@example.com",
        org_id="org_456",
    )
    print(pair.access_token)  # JWT for API calls
    print(pair.refresh_token)  # JWT for token refresh
    print(pair.expires_in)  # Seconds until expiry

    # Validate token
    payload = validate_access_token(token)
    if payload:
        print(payload.user_id)  # "user_123"
        print(payload.email)  # "user@example.com"
        print(payload.is_expired)  # False

    access, refresh, *rest = capsys.readouterr().out.splitlines()
    assert rest == ["86400", "user_123", "user@example.com", "False"]
    assert validate_access_token(access)
    assert validate_access_token(refresh) is None
    assert validate_access_token(create_refresh_token("user_123", "user@example.com")) is None


def test_api_key_authentication():
    from aragora.billing.models import User

    user = User(email="dev@example.com")
    api_key = user.generate_api_key()  # Returns "ara_xxxxx..."

    # Validate API key format
    # Keys must start with "ara_" and be at least 15 characters
    assert api_key.startswith("ara_")
    assert len(api_key) >= 15


class DocumentedHandler(BaseHTTPRequestHandler):
    """A handler of the standard library's server, without a connection."""

    def __init__(self, **headers: str) -> None:
        self.headers = Message()
        for name, value in headers.items():
            self.headers[name] = value


def test_request_authentication(capsys: pytest.CaptureFixture[str]):
    from aragora.billing.jwt_auth import create_access_token, extract_user_from_request

    token = create_access_token("user_123", "user@example.com", "org_456", role="admin")
    handler = DocumentedHandler(Authorization=f"Bearer {token}")

    # In a request handler
    context = extract_user_from_request(handler)

    if context.authenticated:
        print(f"User: {context.user_id}")
        print(f"Role: {context.role}")
        print(f"Token type: {context.token_type}")  # "access" or "api_key"

        if context.is_admin:
            print("Admin operations")

    assert capsys.readouterr().out == "User: user_123\nRole: admin\nToken type: access\nAdmin operations\n"
    assert not extract_user_from_request(DocumentedHandler()).authenticated


def test_token_revocation(capsys: pytest.CaptureFixture[str]):
    from aragora.billing.jwt_auth import (
        TokenBlacklist,
        create_access_token,
        is_token_revoked,
        revoke_token,
        validate_access_token,
    )

    token = create_access_token("user_123", "user@example.com")
    assert validate_access_token(token)

    # Get the singleton blacklist instance
    blacklist = TokenBlacklist.get_instance()

    # Revoke a specific token (by JTI claim)
    revoke_token(token_jti="abc123", reason="user_logout")

    # Check if a token is revoked
    if is_token_revoked(token_jti="abc123"):
        print("Token has been revoked")

    # Revoke all tokens for a user (on password change, account compromise)
    blacklist.revoke_all_for_user(user_id="user_123", reason="password_changed")

    # Cleanup expired entries (automatic, but can be triggered manually)
    blacklist.cleanup()

    assert capsys.readouterr().out == "Token has been revoked\n"
    assert TokenBlacklist.get_instance() is blacklist
    assert validate_access_token(token) is None
    assert validate_access_token(create_access_token("user_123", "user@example.com"))


def test_creating_users(capsys: pytest.CaptureFixture[str]):
    from aragora.billing.models import User

    # Create user
    user = User(email="new@example.com", name="New User")
    user.set_password("secure_password")

    # User ID is auto-generated
    print(user.id)  # UUID string

    # Verify password
    if user.verify_password("secure_password"):
        print("Password correct")

    assert capsys.readouterr().out == f"{user.id}\nPassword correct\n"
    assert len(user.id) == 36
    assert not user.verify_password("insecure_password")


def test_serialization():
    from aragora.billing.models import User

    user = User(email="new@example.com", name="New User")
    user.set_password("secure_password")
    api_key = user.generate_api_key()

    # Safe serialization (excludes sensitive data)
    data = user.to_dict()
    # {"id": "...", "email": "...", "has_api_key": True, ...}
    assert data["id"] == user.id
    assert data["email"] == "new@example.com"
    assert data["has_api_key"] is True
    assert api_key not in json.dumps(data)

    # Include sensitive data (for admin views)
    data = user.to_dict(include_sensitive=True)
    # Includes api_key field
    assert data["api_key"] == api_key

    # Restore from dict
    restored = User.from_dict(data)
    assert restored.to_dict(include_sensitive=True) == data


def test_creating_organizations(capsys: pytest.CaptureFixture[str]):
    from aragora.billing.models import Organization, SubscriptionTier, generate_slug

    # Create organization
    org = Organization(
        name="Acme Corp",
        slug=generate_slug("Acme Corp"),  # "acme-corp"
        tier=SubscriptionTier.PROFESSIONAL,
        owner_id="user_123",
    )

    # Check limits
    print(org.limits.debates_per_month)  # 200
    print(org.debates_remaining)  # 200 (at start of month)
    print(org.is_at_limit)  # False

    assert org.slug == "acme-corp"
    assert capsys.readouterr().out == "200\n200\nFalse\n"


def test_usage_tracking_of_an_organization(capsys: pytest.CaptureFixture[str]):
    from aragora.billing.models import Organization

    org = Organization(name="Acme Corp")

    for _ in range(11):
        # Increment debate count
        if org.increment_debates():
            print("Debate started")
        else:
            print("At limit - upgrade required")

    assert capsys.readouterr().out == "Debate started\n" * 10 + "At limit - upgrade required\n"

    # Reset monthly usage (call at billing cycle)
    org.reset_monthly_usage()
    assert org.debates_remaining == 10
