"""The memory of a sandbox, each page counted once. Slow: about 1 ms per process.

Whatever its processes do, measuring ends: an account of more mappings or more work than any honest
kernel makes is itself beyond a limit.
"""

import os
import time
from dataclasses import dataclass, field

from actors.kernels.limits.procfs import read, threads_of

_SHARED_ANONYMOUS = b"/dev/zero (deleted)"
_MAPPING_BYTES = 256
"""What Linux keeps for one mapping, rounded up."""
_KIBIBYTE = 1 << 10
_BLOCK_BYTES = 512
MOST_MAPPINGS = 1 << 18
"""Of a whole sandbox; a Python with numpy has about 400 per process."""


class TooDearError(Exception):
    """This memory cannot be measured within its bounds; the text says why."""


@dataclass(slots=True)
class _Account:
    """Sums over the processes so far, in bytes; shared anonymous memory by inode."""

    allowed_s: float
    started: float = field(default_factory=time.thread_time)
    own: int = 0
    files: int = 0
    mappings: int = 0
    shared: dict[bytes, int] = field(default_factory=dict)

    def check(self) -> None:
        if self.mappings > MOST_MAPPINGS:
            raise TooDearError(f"its processes have more than {MOST_MAPPINGS:,} memory mappings")
        if time.thread_time() - self.started > self.allowed_s:
            raise TooDearError(f"measuring its memory takes more than {self.allowed_s:g} s of CPU")


def measure_memory(pids: list[int], files_bytes: int, allowed_s: float) -> int:
    """Bytes that processes and the files of their sandbox hold.

    Pages of files in memory count once, as files or as what is mapped, whichever is more. Shared
    memory without a file counts in full, mapped in or not. Page tables, swapped pages and the
    system's own bookkeeping of mappings count too.

    Args:
        pids: those that are gone count nothing.
        files_bytes: what the private folders hold.
        allowed_s: CPU time that this may take.

    Raises:
        TooDearError: it would take longer, or there are too many mappings.
    """
    account = _Account(allowed_s)
    for pid in pids:
        _add_mappings(account, pid)
        _add_pages(account, pid)
        account.check()
    in_memory = files_bytes + sum(account.shared.values())
    kept = account.mappings * _MAPPING_BYTES
    return account.own + max(account.files, in_memory) + kept


def _add_pages(account: _Account, pid: int) -> None:
    sizes = _sizes(_of_process(pid, "smaps_rollup"))
    files = sizes.get(b"Pss_Shmem", 0)
    account.files += files
    account.own += sizes.get(b"Pss", 0) - files + sizes.get(b"SwapPss", 0)
    account.own += sizes.get(b"Private_Hugetlb", 0) + sizes.get(b"Shared_Hugetlb", 0)
    account.own += _sizes(_of_process(pid, "status")).get(b"VmPTE", 0)


def _add_mappings(account: _Account, pid: int) -> None:
    for line in _of_process(pid, "maps").splitlines():
        account.mappings += 1
        if line.endswith(_SHARED_ANONYMOUS):
            account.check()
            _add_shared(account, pid, line)
    account.check()


def _add_shared(account: _Account, pid: int, line: bytes) -> None:
    """Count an object without a file by what it holds, or where we may not see that, by its span.

    What is mapped of it may be less than what it holds.
    """
    span, _, _, _, inode, _ = line.split(None, 5)
    start, end = (int(part, 16) for part in span.split(b"-"))
    try:
        held = os.stat(f"/proc/{pid}/map_files/{start:x}-{end:x}").st_blocks * _BLOCK_BYTES
    except OSError:
        held = end - start
    account.shared[inode] = max(account.shared.get(inode, 0), held)


def _of_process(pid: int, name: str) -> bytes:
    """A file that tells of memory; that of a thread if the main one has ended."""
    if (text := read(f"/proc/{pid}/{name}")) and (name != "status" or b"VmPTE" in text):
        return text
    texts = (read(f"/proc/{pid}/task/{thread}/{name}") for thread in threads_of(pid))
    return next(filter(None, texts), b"")


def _sizes(text: bytes) -> dict[bytes, int]:
    """Lines ``Name:   12 kB``, in bytes."""
    found = {}
    for line in text.splitlines():
        name, _, rest = line.partition(b":")
        number, _, unit = rest.strip().partition(b" ")
        if unit == b"kB":
            found[name] = int(number) * _KIBIBYTE
    return found
