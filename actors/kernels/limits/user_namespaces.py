"""User namespaces that map many user ids, which only root or newuidmap can make."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from actors.kernels import bubblewrap
from actors.kernels.limits.id_ranges import NoHostUidsError, Source
from actors.kernels.sandboxed.isolation import SANDBOX_UID

CHANGES_USER = ("CAP_SETUID", "CAP_SETGID")
"""What a process needs to fork children of other ids that its namespace maps."""
_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Extent:
    """``count`` ids from ``inside`` on are those from ``outside`` on of the host."""

    inside: int
    outside: int
    count: int = 1


@contextlib.contextmanager
def zygote_namespace(source: Source) -> Iterator[int]:
    """A descriptor of a new one for a zygote, for the block; in it, kernels' ids are themselves.

    The zygote is on the host who starts it, or bubblewrap would not die with the actor: a signal
    of a dead parent must be one that it was allowed to send.

    Raises:
        NoHostUidsError: the machine does not allow it.
    """
    command = [*bubblewrap.drop_privileges(source.zygote), "unshare", "--user", "--", "cat"]
    try:
        process = subprocess.Popen(
            command,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except OSError as error:
        raise NoHostUidsError(f"{command[0]} cannot be run: {error.strerror}") from None
    with process:
        handle = _map_and_open(process, source)
    try:
        yield handle
    finally:
        os.close(handle)


def _map_and_open(process: "subprocess.Popen[bytes]", source: Source) -> int:
    """Wait until the process is in its namespace, map that, and open it; the process ends."""
    assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018
    try:
        process.stdin.write(b"x")
        if process.stdout.read(1) != b"x":
            raise NoHostUidsError("a user namespace could not be made")
        for kind, own in (("uid", os.geteuid()), ("gid", os.getegid())):
            extents = _extents(source, own if source.subordinate else source.zygote)
            (_map_by_program if source.subordinate else _map)(process.pid, kind, extents)
        return os.open(f"/proc/{process.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    except (OSError, subprocess.SubprocessError) as error:
        raise NoHostUidsError(f"user ids could not be mapped: {error}") from None
    finally:
        process.kill()


def _extents(source: Source, own: int) -> list[Extent]:
    kernels = Extent(source.ids.first, source.ids.first, source.ids.count)
    return [Extent(SANDBOX_UID, own), Extent(0, source.inner_root), kernels]


def _map(pid: int, kind: str, extents: list[Extent]) -> None:
    lines = "".join(f"{one.inside} {one.outside} {one.count}\n" for one in extents)
    handle = os.open(f"/proc/{pid}/{kind}_map", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(handle, lines.encode())
    finally:
        os.close(handle)


def _map_by_program(pid: int, kind: str, extents: list[Extent]) -> None:
    program = shutil.which(f"new{kind}map") or f"new{kind}map"
    words = [str(n) for one in extents for n in (one.inside, one.outside, one.count)]
    done = subprocess.run(
        [program, str(pid), *words], capture_output=True, timeout=_TIMEOUT_S, check=False
    )
    if done.returncode != 0:
        words_of = done.stderr.decode("utf-8", "replace").strip()
        raise NoHostUidsError(f"{program} refused: {words_of}")
