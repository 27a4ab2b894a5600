"""`python -m auth`."""

from auth.cli import app

app(prog_name="auth")
