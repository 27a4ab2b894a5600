"""What this machine offers: memory, cores, free ports, free disk."""

import os
import resource
import shutil
import socket
from pathlib import Path

import psutil

MIB = 1024 * 1024
GIB = 1024 * MIB

_CGROUP = Path("/sys/fs/cgroup")


def _cgroup_words(name: str) -> list[str]:
    try:
        return (_CGROUP / name).read_text().split()
    except OSError:
        return []


def memory_bytes() -> int:
    """Memory that this process tree may use: the machine's, or the container's where cgroup v2 limits it."""
    total: int = psutil.virtual_memory().total
    match _cgroup_words("memory.max"):
        case [limit] if limit.isdigit():
            return min(total, int(limit))
        case _:
            return total


def cores() -> int:
    """Cores that this process may use, by affinity and by the cgroup v2 quota; at least 1."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    match _cgroup_words("cpu.max"):
        case [quota, period] if quota.isdigit():
            return max(1, min(available, round(int(quota) / int(period))))
        case _:
            return available


def free_disk_bytes(path: Path) -> int:
    """Disk left for ordinary users where `path`, or its nearest existing parent, lies."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen on the port now. A port in TIME_WAIT counts as free."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def free_port(preferred: int | None = None) -> int:
    """A port of 127.0.0.1 that nobody listens on: the preferred one if it is free, else one that the kernel picks.

    That one the kernel picks for nobody else in the minute that follows: a connection has just ended there (TIME_WAIT).
    A server that asks for the port by its number gets it all the same.
    """
    if preferred is not None and port_is_free(preferred):
        return preferred
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as holder:
        holder.bind(("127.0.0.1", 0))
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what ends here is in nobody's way
        holder.listen(1)
        with socket.create_connection(holder.getsockname()) as visitor:
            holder.accept()[0].close()  # who closes first keeps the port
            visitor.recv(1)
        port: int = holder.getsockname()[1]
        return port


def listener_on(port: int) -> psutil.Process | None:
    """The process that listens on the port; None if there is none or it cannot be seen."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except (psutil.AccessDenied, OSError):
        return None
    for connection in connections:
        at = getattr(connection.laddr, "port", None)
        if connection.status == psutil.CONN_LISTEN and at == port and connection.pid:
            try:
                return psutil.Process(connection.pid)
            except psutil.NoSuchProcess:
                return None
    return None


def allow_many_connections() -> None:
    """The soft limit of open files is often 1,024; each connection is one, and children inherit the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(65536, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
