"""Running Postgres for root: it refuses to run as root itself, so it gets a system user of its own.

That user must be able to pass through every folder above its files. Where one is closed to it, it is opened for passing
through (`o+x`), not for reading or listing, and the caller is told, so that the operator is.
"""

import os
import pwd
import stat
import subprocess
from pathlib import Path

from standalone.child import SystemUser

USER_NAME = "aragora"

_CREATE = (
    ("useradd", "--system", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin"),
    ("adduser", "-S", "-H", "-D"),  # Alpine
)


def system_user() -> SystemUser | None:
    """The user that servers run as: None (ourselves), or for root the system user `aragora`, made when absent.

    Where no user can be made, it is `nobody`.
    """
    if os.geteuid() != 0:
        return None
    for command in _CREATE:
        found = _find(USER_NAME)
        if found is not None:
            return found
        try:
            subprocess.run([*command, USER_NAME], check=False, capture_output=True)
        except FileNotFoundError:
            continue
    return _find(USER_NAME) or _find("nobody")


def _find(name: str) -> SystemUser | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return SystemUser(name, entry.pw_uid, entry.pw_gid)


def _may(user: SystemUser, path: Path, right: int) -> bool:
    """Whether the user has the right (4 read, 2 write, 1 execute) by owner, group and mode."""
    status = path.stat()
    if status.st_uid == user.uid:
        return bool(status.st_mode & (right << 6))
    if status.st_gid == user.gid:
        return bool(status.st_mode & (right << 3))
    return bool(status.st_mode & right)


def open_way_to(user: SystemUser, path: Path) -> list[Path]:
    """Let the user pass through the folders above `path`. Returns those that had to be opened."""
    opened = []
    for folder in reversed(path.resolve().parents):
        if not _may(user, folder, 1):
            folder.chmod(stat.S_IMODE(folder.stat().st_mode) | stat.S_IXOTH)
            opened.append(folder)
    return opened


def open_for_reading(user: SystemUser, tree: Path) -> None:
    """Let the user read an installed tree, if whoever installed it did so with a closed umask."""
    if _may(user, tree, 4 | 1):
        return
    for path in (tree, *tree.rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        path.chmod(mode | stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0))


def give(user: SystemUser, tree: Path) -> None:
    """Make the user the owner of a tree, unless it is."""
    if tree.stat().st_uid == user.uid:
        return
    for path in (tree, *tree.rglob("*")):
        os.chown(path, user.uid, user.gid, follow_symlinks=False)
