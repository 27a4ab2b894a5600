"""The Python SDK of Aragora Billing: tokens, usage, prices and costs.

Import from its modules: `aragora.billing.usage`, `aragora.billing.costs`, `aragora.billing.jwt_auth`.
"""
