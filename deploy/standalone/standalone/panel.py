"""What `aragora up` and `aragora status` show."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from standalone import credentials
from standalone.credentials import Credentials
from standalone.datadir import Running
from standalone.service_settings import mailbox_url, operator_account


def _grid() -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    return grid


def welcome(running: Running, secrets: Credentials, data_dir: Path, opened_folders: Sequence[Path]) -> Panel:
    """The one panel of URLs and credentials."""
    databases = ", ".join(secrets.database_of(service).name for service in credentials.SERVICES)
    grid = _grid()
    grid.add_row("API", Text(running.url))
    grid.add_row("Docs", Text(f"{running.url}/docs"))
    email, password = operator_account(secrets)
    grid.add_row("Operator", Text(email))
    grid.add_row("Password", Text(f"{password} (until you choose another)"))
    grid.add_row("Service key", Text(secrets.service_key))
    grid.add_row(
        "Postgres", Text(f"127.0.0.1:{running.postgres_port}, databases {databases}, each with a user of its name")
    )
    grid.add_row("NATS", Text(f"nats://127.0.0.1:{running.nats_port}, users {', '.join(secrets.bus)}"))
    if running.stripe:
        grid.add_row("Stripe", Text(f"{running.stripe_url} is a stand-in for Stripe; nothing is charged"))
    if url := mailbox_url(secrets, running):
        grid.add_row("Mailbox", Text(f"{url} has every letter; none leaves this machine"))
    grid.add_row("All secrets", Text(str(credentials.path_of(data_dir))))
    grid.add_row("Logs", Text(str(data_dir / "logs")))
    if opened_folders:
        folders = ", ".join(str(folder) for folder in dict.fromkeys(opened_folders))
        grid.add_row("Opened", Text(f"{folders}: now passable (o+x), because Postgres does not run as root"))
    tour = Text("Try: ", style="dim")
    tour.append(f'curl -H "Authorization: Bearer $(aragora key)" {running.url}/api/subscription/pricing')
    return Panel(
        Group(grid, Text(), tour, Text("Ctrl-C stops everything; the data stays.", style="dim")),
        title="Aragora Billing",
    )


def status(report: dict[str, Any]) -> Group:
    """The report of `aragora status`, for people."""
    grid = _grid()
    healthy = report["ready"]
    grid.add_row(
        "API",
        Text(f"{report['url']}  ", end="").append(
            "ready" if healthy else report["not_ready"], "green" if healthy else "red"
        ),
    )
    for name, version in report["versions"].items():
        grid.add_row(name, Text(str(version)))
    for name, port in report["ports"].items():
        grid.add_row(f"{name} port", Text(str(port)))
    for name, figure in report["usage"].items():
        grid.add_row(name.replace("_", " "), Text(str(figure)))
    children = Table("process", "pid", "state", "memory", "running for", box=None, padding=(0, 2, 0, 0))
    for child in report["processes"]:
        children.add_row(
            child["name"],
            str(child["pid"]),
            Text(child["state"], "green" if child["state"] == "running" else "red"),
            f"{child['memory_mib']} MiB",
            f"{child['seconds']} s",
        )
    return Group(grid, Text(), children)
