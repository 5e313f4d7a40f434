"""A PostgreSQL server of Debian's on a free port, for tests that need a real one."""

import os
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest


def free_port():
    """A port of the loopback that nobody listens to."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def programs():
    """The folder of the server's programs, the newest one, or None."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    if found:
        return found[-1].parent
    there = shutil.which("initdb")
    return Path(there).parent if there else None


@contextmanager
def postgresql(folder):
    """A server whose data is in a new folder; gives its URL."""
    pytest.importorskip("psycopg")
    binaries = programs()
    if binaries is None:
        pytest.skip("there is no PostgreSQL server here")
    import pwd

    user = {}
    if os.geteuid() == 0:  # it refuses to run as root
        try:
            account = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("a PostgreSQL server does not run as root, and there is no user postgres")
        os.chown(folder, account.pw_uid, account.pw_gid)
        for parent in [folder, *folder.parents]:
            if not parent.stat().st_mode & 0o001 and parent != Path("/"):
                parent.chmod(parent.stat().st_mode | 0o011)
        user = {"user": "postgres", "group": account.pw_gid, "extra_groups": [], "cwd": "/"}
    data, port = folder / "data", free_port()
    subprocess.run(
        [binaries / "initdb", "-D", data, "-A", "trust", "-U", "cbs",
         "--no-sync", "-E", "UTF8", "--locale=C"],
        check=True, capture_output=True, **user,
    )  # fmt: skip
    server = subprocess.Popen(
        [binaries / "postgres", "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", str(folder), "-F"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **user,
    )  # fmt: skip
    try:
        for _ in range(200):
            ready = [binaries / "pg_isready", "-h", "127.0.0.1", "-p", str(port)]
            if subprocess.run(ready, capture_output=True).returncode == 0:
                break
            time.sleep(0.1)
        yield f"postgresql://cbs@127.0.0.1:{port}/postgres"
    finally:
        server.terminate()
        server.wait(20)
