"""Which user ids kernels may have on this machine: as root a range, else subordinate ids."""

import os
import pwd
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_LARGEST_ID = (1 << 31) - 1
SPARE = 2
"""Ids of a range that no kernel gets: that of the zygotes, and what is root inside."""
_LEAST = SPARE + 1


class NoHostUidsError(Exception):
    """Kernels cannot have user ids of their own here; the text says why, ``fix`` what to do."""

    def __init__(self, reason: str, fix: str = "see docs/sandbox.md") -> None:
        """Say it."""
        super().__init__(reason)
        self.fix = fix


@dataclass(frozen=True, slots=True)
class IdRange:
    """``count`` ids from ``first`` on."""

    first: int
    count: int

    @property
    def end(self) -> int:
        """The first id after it."""
        return self.first + self.count

    def meets(self, other: "IdRange") -> bool:
        """Whether an id is in both."""
        return self.first < other.end and other.first < self.end

    def __str__(self) -> str:
        """First and last id."""
        return f"{self.first}-{self.end - 1}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where user ids come from.

    Attributes:
        ids: those that kernels get.
        folder: of the register of those in use.
        inner_root: stands for root in namespaces that map the range; nothing runs as it.
        zygote: what zygotes are, and who owns their namespaces, as root.
        subordinate: they are ours by /etc/subuid, and mapped by newuidmap.
    """

    ids: IdRange
    folder: Path
    inner_root: int
    zygote: int
    subordinate: bool


def find_source(wanted: IdRange) -> Source:
    """As root the range that is wanted, else the subordinate ids of this user.

    Raises:
        NoHostUidsError: there are none, or somebody else has them.
    """
    if os.geteuid() == 0:
        check_range(wanted, mapped=_mapped(), taken=_taken())
        return _source(wanted, Path("/run/lzero"), subordinate=False)
    return _subordinate_source()


def _source(ids: IdRange, folder: Path, *, subordinate: bool) -> Source:
    return Source(
        ids=IdRange(ids.first, ids.count - SPARE),
        folder=folder,
        inner_root=ids.end - 1,
        zygote=ids.end - 2,
        subordinate=subordinate,
    )


def check_range(
    wanted: IdRange,
    *,
    mapped: Iterable[IdRange],
    taken: Iterable[tuple[str, IdRange]],
) -> None:
    """Whether kernels may have these ids.

    Args:
        wanted: the range.
        mapped: ids that exist in our user namespace.
        taken: ids of others, and whose they are.

    Raises:
        NoHostUidsError: they may not.
    """
    if wanted.first < 1 or wanted.count < _LEAST or wanted.end > _LARGEST_ID:
        raise NoHostUidsError(
            f"{wanted} is no range of at least {_LEAST} user ids between 1 and {_LARGEST_ID - 1}",
            "correct kernel.first_uid and kernel.uids",
        )
    spans = list(mapped)
    if not any(span.first <= wanted.first and wanted.end <= span.end for span in spans):
        there = ", ".join(map(str, spans)) or "none"
        raise NoHostUidsError(
            f"user ids {wanted} do not exist in this container, which has {there}",
            "set kernel.first_uid and kernel.uids to some of those that nobody has",
        )
    for owner, span in taken:
        if wanted.meets(span):
            raise NoHostUidsError(
                f"user ids {wanted} meet {span} of {owner}",
                "set kernel.first_uid to ids that nobody has",
            )


def subordinate_range(text: str, names: tuple[str, ...]) -> IdRange | None:
    """The largest range that a file like /etc/subuid gives to one of ``names``."""
    spans = [span for name, span in parse_subordinate(text) if name in names]
    return max(spans, key=lambda span: span.count, default=None)


def parse_subordinate(text: str) -> list[tuple[str, IdRange]]:
    """Lines ``name:first:count`` of /etc/subuid; others are skipped."""
    found = []
    for line in text.splitlines():
        name, _, numbers = line.strip().partition(":")
        first, _, count = numbers.partition(":")
        if first.isdecimal() and count.isdecimal():
            found.append((name, IdRange(int(first), int(count))))
    return found


def _subordinate_source() -> Source:
    if shutil.which("newuidmap") is None or shutil.which("newgidmap") is None:
        raise NoHostUidsError(
            "we are not root, and newuidmap is not installed",
            "apt-get install uidmap, or run as root",
        )
    uid = os.geteuid()
    names = (str(uid), *_account_name(uid))
    users = subordinate_range(_text("/etc/subuid"), names)
    groups = subordinate_range(_text("/etc/subgid"), names)
    if users is None or users != groups or users.count < _LEAST:
        raise NoHostUidsError(
            f"we are not root, and user {names[-1]} has not the same subordinate ids in "
            "/etc/subuid and /etc/subgid",
            "as root, with ids that nobody has: "
            f"usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {names[-1]}",
        )
    return _source(users, _own_folder(uid), subordinate=True)


def _own_folder(uid: int) -> Path:
    runtime = Path(f"/run/user/{uid}")
    return runtime / "lzero" if runtime.is_dir() else Path(f"/var/tmp/lzero-{uid}")  # noqa: S108


def _account_name(uid: int) -> tuple[str, ...]:
    try:
        return (pwd.getpwuid(uid).pw_name,)
    except KeyError:
        return ()


def _mapped() -> list[IdRange]:
    """Ids of our user namespace; those of users, of which groups have as many in practice."""
    lines = [line.split() for line in _text("/proc/self/uid_map").splitlines()]
    return [IdRange(int(first), int(count)) for first, _, count in lines]


def _taken() -> list[tuple[str, IdRange]]:
    """Accounts, groups and subordinate ids of this machine's own files, with their owners."""
    taken = []
    for file, kind in (("/etc/passwd", "user"), ("/etc/group", "group")):
        for line in _text(file).splitlines():
            fields = line.split(":")
            if len(fields) > 2 and fields[2].isdecimal():
                taken.append((f"{kind} {fields[0]}", IdRange(int(fields[2]), 1)))
    for file in ("/etc/subuid", "/etc/subgid"):
        for name, span in parse_subordinate(_text(file)):
            taken.append((f"{name} in {file}", span))
    return taken


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
