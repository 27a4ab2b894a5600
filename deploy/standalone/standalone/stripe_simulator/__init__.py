"""A stand-in for Stripe, for tests and demonstrations: a real HTTP server that the official SDK can talk to.

`README.md` beside this file says what it does like Stripe and what it does not. Nothing here ever moves money.
"""
