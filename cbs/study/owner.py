"""Who runs a cell: a driver's process, told apart from others, and whether it is still there."""

from __future__ import annotations

import os
import socket
from functools import cache
from pathlib import Path


@cache
def owner() -> str:
    """This process, told apart from an earlier one of the same number, and from those of other machines."""
    return f"{_host()}:{os.getpid()}:{_born(os.getpid())}"


def gone(who: str) -> bool:
    """Whether an owner was a process of this machine that is no more."""
    import psutil

    host, _, rest = who.partition("#")[0].partition(":")
    number, _, born = rest.partition(":")
    if host != _host() or not number.isdigit():
        return False
    try:
        return _born(int(number)) != born
    except psutil.NoSuchProcess:
        return True


@cache
def _host() -> str:
    """This machine since it was started, and what of it this process sees; several may have one name."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
        return f"{socket.gethostname()}/{boot}.{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return socket.gethostname()


def _born(number: int) -> str:
    """When a process began: by a clock that nobody sets, where there is one."""
    import psutil

    try:
        told = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
        return f"{int(told[19]) / os.sysconf('SC_CLK_TCK'):.2f}"
    except OSError:
        return f"{psutil.Process(number).create_time():.2f}"
