"""Becomes another program: `python launch.py PARENT_PID SIGNAL UID GID PROGRAM [ARGUMENT...]`. Standard library only.

It does, in a process of its own, what is unsafe between fork and exec in a process with threads: takes on the user (UID
-1 keeps the present one) and, on Linux, asks the kernel to send it SIGNAL when its parent dies, however that dies.
"""

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    parent_pid, death_signal, uid, gid = (int(argument) for argument in sys.argv[1:5])
    argv = sys.argv[5:]
    if uid >= 0:
        os.setgroups([gid])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        # After the change of user, which would clear it; exec keeps it.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
    if os.getppid() != parent_pid:
        sys.exit("the parent is gone")
    try:
        os.execv(argv[0], argv)  # noqa: S606  without a shell is what is wanted
    except OSError as error:
        sys.exit(f"{argv[0]} cannot be executed: {error}")


if __name__ == "__main__":
    main()
