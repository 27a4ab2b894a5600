"""`python -m billing`."""

from billing.cli import app

app(prog_name="billing")
