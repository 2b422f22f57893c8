"""Where processes listen, and what another user of the machine gets from them."""

import json
import os
import pwd
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pytest

_ACCEPTS = 0x10000  # __SO_ACCEPTCON in /proc/net/unix
_LISTENS = "0A"

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")


def listening(pids: Iterable[int]) -> set[tuple[int, str]]:
    """(pid, where) of all sockets of these processes that others on the machine can reach."""
    found = set()
    for pid in pids:
        with suppress(OSError):  # it ended meanwhile
            process = Path(f"/proc/{pid}")
            known = _reachable(process / "net")
            if not os.path.samefile(process / "ns" / "net", "/proc/self/ns/net"):
                known = {inode: where for inode, where in known.items() if where.startswith("/")}
            inodes = [link[8:-1] for link in _links(process / "fd")]
            found |= {(pid, known[inode]) for inode in inodes if inode in known}
    return found


def _links(folder: Path) -> list[str]:
    """What the links in a folder point to; those that are gone meanwhile are left out."""
    found = []
    with suppress(OSError):
        for entry in list(folder.iterdir()):
            with suppress(OSError):
                found.append(os.readlink(entry))
    return [link for link in found if link.startswith("socket:[")]


def _reachable(net: Path) -> dict[str, str]:
    """Where, by inode: the path of a Unix socket, or ``tcp 127.0.0.1:5000``."""
    where = {}
    for line in (net / "unix").read_text().splitlines()[1:]:
        words = line.split(maxsplit=7)
        if int(words[3], 16) & _ACCEPTS:
            where[words[6]] = words[7] if len(words) == 8 else "unnamed"
    for protocol in ("tcp", "tcp6", "udp", "udp6"):
        for line in (net / protocol).read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == _LISTENS or protocol.startswith("udp"):
                where[words[9]] = f"{protocol} {_address(words[1])}"
    return where


def _address(text: str) -> str:
    number, port = text.split(":")
    if len(number) == 8:
        number = ".".join(str(part) for part in reversed(bytes.fromhex(number)))
    return f"{number}:{int(port, 16)}"


_TRY = """
import json, os, socket, sys
def tried(what, path):
    try:
        if what == "enter":
            os.chdir(path)
        elif what == "list":
            os.listdir(path)
        elif what == "write":
            open(path + "/planted", "x").close()
        elif what == "read":
            open(path, "rb").read(1)
        else:
            socket.socket(socket.AF_UNIX).connect(path)
    except OSError as error:
        return type(error).__name__
    return "done"
attempts = json.load(sys.stdin)
os.setgroups([])
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[1]))
print(json.dumps([tried(*attempt) for attempt in attempts]))
"""


def as_nobody(attempts: list[tuple[str, Path]]) -> list[str]:
    """What became of each attempt of uid nobody to enter, list, write, read or connect."""
    nobody = pwd.getpwnam("nobody")
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _TRY, str(nobody.pw_uid), str(nobody.pw_gid)],
        input=json.dumps([(what, str(path)) for what, path in attempts]),
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    results: list[str] = json.loads(done.stdout)
    return results


def attempts_on(folder: Path) -> list[tuple[str, Path]]:
    """Everything that can be tried on a private folder and what is in it."""
    attempts = [("enter", folder), ("list", folder), ("write", folder)]
    for path in folder.rglob("*"):
        attempts.append(("connect", path) if path.is_socket() else ("read", path))
    return attempts
