"""The private mounts of one sandbox, made by the sandbox itself.

Bubblewrap can neither bound the files of a tmpfs nor the terminals of a devpts, nor leave the
machine's own figures out of /proc. The caller is single-threaded and may mount in its namespace.
"""

import ctypes
import os

from actors.kernels.sandboxed.isolation import Limits, check, libc

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
"""Device nodes below /dev, which are the host's own."""
_NOSUID, _NODEV, _NOEXEC, _NOSYMFOLLOW, _READ_ONLY = 2, 4, 8, 256, 1
_REMOUNT, _BIND, _RECURSIVE, _PRIVATE = 32, 4096, 16384, 1 << 18
_SHARED_MEMORY_MIB = 16
_TERMINALS = 16


def mount_private(limits: Limits) -> None:
    """Give the sandbox its own /tmp, /workspace, /dev/shm, /dev/pts and /proc, and go to /.

    Bytes and inodes of the folders are bounded. /proc shows processes and nothing of the machine,
    and is read-only, so that no process can change how soon the system would sacrifice it.
    Whatever lay below stays reachable by the working folder of a process, so that must change too.
    """
    _mount(None, "/", None, _RECURSIVE | _PRIVATE)
    size = limits.workspace_mib
    for path, mib, mode in (
        ("/tmp", size, "1777"),  # noqa: S108 - the sandbox's own /tmp
        ("/workspace", size, "0700"),
        ("/dev/shm", _SHARED_MEMORY_MIB, "1777"),  # noqa: S108
    ):
        options = f"size={mib}m,mode={mode},nr_inodes={limits.inodes}"
        _mount("tmpfs", path, "tmpfs", _NOSUID | _NODEV, options)
    _mount_devices()
    _mount("proc", "/proc", "proc", _NOSUID | _NODEV | _NOEXEC | _READ_ONLY, "subset=pid")
    os.chdir("/")


def mount_sockets(path: str) -> int:
    """Mount a tiny tmpfs for unix sockets at ``path``; a descriptor of the folder.

    Whoever holds the descriptor can reach the sockets from outside. Symbolic links in the folder
    are never followed, so untrusted code cannot send the holder elsewhere.
    """
    flags = _NOSUID | _NODEV | _NOEXEC | _NOSYMFOLLOW
    _mount("tmpfs", path, "tmpfs", flags, "size=256k,mode=0700,nr_inodes=64")
    return os.open(path, os.O_PATH | os.O_DIRECTORY)


def _mount_devices() -> None:
    """Own terminals; times of the host's device nodes cannot be set, which all sandboxes share."""
    options = f"newinstance,ptmxmode=0666,mode=0600,max={_TERMINALS}"
    _mount("devpts", "/dev/pts", "devpts", _NOSUID | _NOEXEC, options)
    for name in DEVICES:
        _mount(None, f"/dev/{name}", None, _REMOUNT | _BIND | _READ_ONLY | _NOSUID)


def _mount(
    source: str | None, target: str, kind: str | None, flags: int, options: str | None = None
) -> None:
    arguments = [text.encode() if text else None for text in (source, target, kind)]
    data = options.encode() if options else None
    check(libc.mount(*arguments, ctypes.c_ulong(flags), data), f"mount {target}")
