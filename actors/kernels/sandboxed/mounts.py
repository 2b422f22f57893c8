"""The private mounts of one sandbox, made by the sandbox itself.

Bubblewrap can neither bound the files of a tmpfs nor the terminals of a devpts, nor leave the
machine's own figures out of /proc. The caller is single-threaded and may mount in its namespace.
"""

import ctypes
import os
import struct

from actors.kernels.sandboxed.isolation import Limits, check, libc

_NOSUID, _NODEV, _NOEXEC, _NOSYMFOLLOW, _READ_ONLY = 2, 4, 8, 256, 1
_MOUNT_SETATTR, _RECURSIVE, _PRIVATE = 442, 0x8000, 1 << 18
SHARED_MEMORY_MIB = 16
_TERMINALS = 16


def mount_private(limits: Limits) -> None:
    """Give the sandbox its own /tmp, /workspace, /dev/shm, /dev/pts and /proc, and go to /.

    Bytes and inodes of the folders are bounded. /proc shows processes and nothing of the machine,
    and is read-only, so that no process can change how soon the system would sacrifice it.

    All that was mounted before becomes read-only, device nodes too, whose times would tell other
    sandboxes something; what is covered stays reachable by the working folder of a process.
    """
    _keep_read_only()
    size = limits.workspace_mib
    for path, mib, mode in (
        ("/tmp", size, "1777"),  # noqa: S108 - the sandbox's own /tmp
        ("/workspace", size, "0700"),
        ("/dev/shm", SHARED_MEMORY_MIB, "1777"),  # noqa: S108
    ):
        options = f"size={mib}m,mode={mode},nr_inodes={limits.inodes}"
        _mount("tmpfs", path, "tmpfs", _NOSUID | _NODEV, options)
    terminals = f"newinstance,ptmxmode=0666,mode=0600,max={_TERMINALS}"
    _mount("devpts", "/dev/pts", "devpts", _NOSUID | _NOEXEC, terminals)
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


def _keep_read_only() -> None:
    """Make every mount there is read-only and private, in one call (Linux 5.12)."""
    attributes = struct.pack("4Q", _READ_ONLY, 0, _PRIVATE, 0)
    arguments = (ctypes.c_long(_MOUNT_SETATTR), -100, b"/", _RECURSIVE, attributes)
    check(libc.syscall(*arguments, ctypes.c_long(len(attributes))), "mount_setattr /")


def _mount(source: str, target: str, kind: str, flags: int, options: str) -> None:
    texts = [text.encode() for text in (source, target, kind)]
    check(libc.mount(*texts, ctypes.c_ulong(flags), options.encode()), f"mount {target}")
