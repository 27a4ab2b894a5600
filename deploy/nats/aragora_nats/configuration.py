"""What a NATS server is told: its users from the topology, and what keeps an acknowledged message.

Two forms of the same: JSON with the passwords in it, for a server that we start ourselves, and `accounts.conf`, which
names environment variables instead and so can be committed, mounted and read.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from aragora.contracts.topology import ACCOUNTS, Account

MIB = 1024 * 1024
GIB = 1024 * MIB
MAX_PAYLOAD_BYTES = 8 * MIB
MAX_PENDING_BYTES = 8 * MAX_PAYLOAD_BYTES
SYNC_INTERVAL = "always"
"""An acknowledged message is one that is on disk, on as many servers as the stream has replicas of a majority."""
STREAM_MAX_BYTES = 8 * GIB
"""Disk that one stream may take, unless somebody says otherwise. JetStream reserves it for as long as it exists."""
MAX_FILE_STORE_BYTES = 8 * STREAM_MAX_BYTES
MAX_MEMORY_STORE_BYTES = 64 * MIB
"""For the consumers with which processes follow revocations; no stream lives in memory."""
CLUSTER_USER = "cluster"
"""As whom servers of one cluster meet each other."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A server's place in a cluster.

    Args:
        port: where it listens for the others.
        routes: `host:port` of all of them; its own may be among them.
        password: what they show each other.
    """

    port: int
    routes: tuple[str, ...]
    password: str


def password_variable(account: str) -> str:
    """The environment variable of a server from which `accounts.conf` takes an account's password."""
    return f"NATS_PASSWORD_{account.upper()}"


def permissions(account: Account) -> dict[str, object]:
    """What an account may do, as the server's configuration says it."""
    return {
        "publish": {"allow": list(account.publish), "deny": list(account.publish_denied)},
        "subscribe": {"allow": list(account.subscribe)},
    }


def configuration(
    store_dir: str,
    port: int,
    passwords: Mapping[str, str],
    *,
    host: str = "127.0.0.1",
    monitoring_port: int | None = None,
    server_name: str = "aragora",
    cluster: Cluster | None = None,
    encryption_key: str | None = None,
) -> str:
    """A server's whole configuration, in JSON, which NATS reads. It holds the passwords: mode 0600.

    Args:
        store_dir: where the streams live.
        port: for clients.
        passwords: by account; each of the topology needs one.
        host: the address it listens on.
        monitoring_port: serve NATS' own monitoring pages there.
        server_name: unique within a cluster.
        cluster: its place in a cluster; without one it is alone.
        encryption_key: what the streams are encrypted with on disk; without one they are not.
    """
    jetstream: dict[str, object] = {
        "store_dir": store_dir,
        "sync_interval": SYNC_INTERVAL,
        "max_memory_store": MAX_MEMORY_STORE_BYTES,
        "max_file_store": MAX_FILE_STORE_BYTES,
    }
    if encryption_key is not None:
        jetstream |= {"cipher": "chachapoly", "key": encryption_key}
    settings: dict[str, object] = {
        "server_name": server_name,
        "host": host,
        "port": port,
        "max_payload": MAX_PAYLOAD_BYTES,
        "max_pending": MAX_PENDING_BYTES,
        "ports_file_dir": store_dir,
        "jetstream": jetstream,
        "authorization": {
            "users": [
                {"user": account.name, "password": passwords[account.name], "permissions": permissions(account)}
                for account in ACCOUNTS
            ]
        },
    }
    if monitoring_port is not None:
        settings["http"] = f"{host}:{monitoring_port}"
    if cluster is not None:
        settings["cluster"] = {
            "name": "aragora",
            "listen": f"{host}:{cluster.port}",
            "authorization": {"user": CLUSTER_USER, "password": cluster.password},
            "routes": [f"nats://{CLUSTER_USER}:{cluster.password}@{route}" for route in cluster.routes],
        }
    return json.dumps(settings, indent=2) + "\n"


def accounts_file() -> str:
    """`accounts.conf`: the users of the bus and what each may do; the passwords come from the server's environment."""
    return (
        "# Written by `make api-docs` from aragora.contracts.topology: change it there.\n"
        "# Passwords come from the server's environment. Each must begin with a letter: NATS reads 12e3 as a number.\n"
        "authorization {\n  users: [\n" + "".join(map(_entry, ACCOUNTS)) + "  ]\n}\n"
    )


def _entry(account: Account) -> str:
    def listed(subjects: tuple[str, ...]) -> str:
        return "[" + "".join(f"\n            {json.dumps(subject)}" for subject in subjects) + "\n          ]"

    denied = f"\n          deny: {listed(account.publish_denied)}" if account.publish_denied else ""
    return (
        f"    # {account.description}\n"
        f"    {{\n      user: {account.name}\n      password: ${password_variable(account.name)}\n"
        "      permissions: {\n"
        f"        publish: {{\n          allow: {listed(account.publish)}{denied}\n        }}\n"
        f"        subscribe: {{\n          allow: {listed(account.subscribe)}\n        }}\n"
        "      }\n    }\n"
    )
