"""`python -m metering`."""

from metering.cli import app

app(prog_name="metering")
