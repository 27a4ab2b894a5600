"""Who is calling: access and refresh tokens, their revocation, and the authentication of a request.

Tokens are JSON Web Tokens, verified locally by every service. What signs them comes from the environment: HS256 with
`ARAGORA_JWT_SECRET`, or a key pair (see `token_keys`); so do their lifetimes, `ARAGORA_JWT_EXPIRY_HOURS` (24) and
`ARAGORA_REFRESH_TOKEN_EXPIRY_DAYS` (30).
"""

from aragora.billing.api_keys import VerifiedKey
from aragora.billing.auth_context import AuthContext, extract_user_from_request
from aragora.billing.revocation import TokenBlacklist, is_token_revoked, revoke_token
from aragora.billing.token_keys import jwks
from aragora.billing.token_payload import TokenPayload
from aragora.billing.token_settings import JWTConfigError
from aragora.billing.tokens import (
    JWTConfig,
    TokenPair,
    create_access_token,
    create_refresh_token,
    create_token_pair,
    validate_access_token,
    validate_refresh_token,
)

__all__ = [
    "AuthContext",
    "JWTConfig",
    "JWTConfigError",
    "TokenBlacklist",
    "TokenPair",
    "TokenPayload",
    "VerifiedKey",
    "create_access_token",
    "create_refresh_token",
    "create_token_pair",
    "extract_user_from_request",
    "is_token_revoked",
    "jwks",
    "revoke_token",
    "validate_access_token",
    "validate_refresh_token",
]
