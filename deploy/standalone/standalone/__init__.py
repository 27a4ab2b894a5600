"""Aragora Billing in one command on one machine: embedded Postgres and NATS, supervised, and every service."""
