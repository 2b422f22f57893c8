"""A user id of the host for every kernel, which no other live kernel of the machine has.

Linux counts descriptors in flight, pipe pages, epoll watches, pending signals and more for each
user id, whatever namespace a process is in. Kernels that share one can use these up for each other.

A lease is one byte of a file, locked for the descriptor that it was opened with: it ends with its
holder, however that ends. A user id that some process still has is passed over, so the kernels of
an actor that was killed keep theirs until they are gone.
"""

import contextlib
import fcntl
import logging
import os
import secrets
import stat
import struct
from dataclasses import dataclass
from pathlib import Path

from actors.kernels.interface import DeathCause, KernelDiedError
from actors.kernels.limits.id_ranges import SPARE, IdRange, NoHostUidsError, Source, find_source
from common.config import Kernel as KernelConfig

_LOGGER = logging.getLogger(__name__)
_FLOCK = "hhqqi4x"
"""``struct flock``: type, whence, start, length, pid."""


@dataclass(slots=True)
class UidLease:
    """One user id; also a group id of the same number."""

    uid: int
    _file: int

    def release(self) -> None:
        """Give it back; does nothing the second time. Its processes must be gone."""
        handle, self._file = self._file, -1
        if handle >= 0:
            os.close(handle)


def release(lease: UidLease | None) -> None:
    """Give back what ``HostUids.lease`` gave."""
    if lease is not None:
        lease.release()


class HostUids:
    """Leases for the kernels of one launcher, from where this machine allows."""

    def __init__(self, first: int, count: int) -> None:
        """Lease ``count`` ids from ``first`` on as root; else those of /etc/subuid."""
        self._range = IdRange(first, count)
        self._source: Source | None = None
        self._opened = False

    @property
    def source(self) -> Source | None:
        """Where ids come from; None where kernels share one."""
        if not self._opened:
            self._opened = True
            try:
                source = find_source(self._range)
                os.close(_open_register(source.folder))
                self._source = source
            except NoHostUidsError as reason:
                self.give_up(f"{reason}; {reason.fix}")
            except OSError as error:
                self.give_up(f"the register of those in use cannot be kept: {error}")
        return self._source

    def give_up(self, reason: str) -> None:
        """From now on kernels share one user id; says so once."""
        self._opened, self._source = True, None
        level = logging.WARNING if os.geteuid() == 0 else logging.INFO
        _LOGGER.log(level, "kernels share one user id of the host: %s", reason)

    def lease(self) -> UidLease | None:
        """A user id that nobody has; None where kernels share one.

        Raises:
            KernelDiedError: all of them are taken.
        """
        if self.source is None:
            return None
        ids = self.source.ids
        lease = lease_uid(ids, self.source.folder)
        if lease is None:
            given_by = "/etc/subuid" if self.source.subordinate else "kernel.uids"
            raise KernelDiedError(
                f"all {ids.count} user ids from {ids.first} on are in use: {given_by} has "
                f"{ids.count + SPARE}, of which {SPARE} are reserved; give more, or run fewer "
                "kernels at once",
                DeathCause.FAILED_TO_START,
            )
        return lease


def has_own_uids(config: KernelConfig, launcher: str) -> bool:
    """Whether kernels of this launcher get user ids of their own here."""
    source = HostUids(config.first_uid, config.uids).source
    return source is not None and (launcher == "forked" or not source.subordinate)


def lease_uid(ids: IdRange, folder: Path) -> UidLease | None:
    """Lock an id that no process has, beginning anywhere in the range; None if there is none.

    Raises:
        OSError: the folder cannot be made or belongs to somebody else.
    """
    handle = _open_register(folder)
    start = secrets.randbelow(ids.count)
    for step in range(ids.count):
        uid = ids.first + (start + step) % ids.count
        if not _lock(handle, uid, fcntl.F_WRLCK):
            continue
        if not _has_processes(uid):
            return UidLease(uid, handle)
        _lock(handle, uid, fcntl.F_UNLCK)
    os.close(handle)
    return None


def _open_register(folder: Path) -> int:
    """Open the file whose byte N stands for user id N."""
    with contextlib.suppress(FileNotFoundError):
        return _open_in(folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return _open_in(folder)


def _open_in(folder: Path) -> int:
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise PermissionError(f"{folder} must be a folder that only we can write to; remove it")
    return os.open(folder / "uids", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _lock(handle: int, position: int, kind: int) -> bool:
    """Lock or free one byte for this open file; False if another one has it."""
    try:
        request = struct.pack(_FLOCK, kind, os.SEEK_SET, position, 1, 0)
        fcntl.fcntl(handle, fcntl.F_OFD_SETLK, request)
    except BlockingIOError:
        return False
    return True


def _has_processes(uid: int) -> bool:
    try:
        os.getpriority(os.PRIO_USER, uid)
    except ProcessLookupError:
        return False
    return True
