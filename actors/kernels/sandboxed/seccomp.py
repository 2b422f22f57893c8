"""A seccomp deny list as classic BPF, without any dependency.

Denied are the system calls that reach what namespaces do not isolate (keyrings, vsock, io_uring,
bpf, perf), that undo the isolation (mount, unshare, ptrace) or that tell what others do with shared
files (inotify, dnotify, leases), and all that make memory which stays when no process has it mapped
any more, or which Linux keeps for a process or a file (Landlock, extended attributes): nothing in
/proc would tell of it. Shared memory lies in files, whose folders are bounded. Everything else is
allowed, so ordinary Python, threads, processes and mapped files work. Of ``prctl`` only what
programs need is allowed: Linux gets new operations with every version, and one pins a gibibyte.

``splice`` and ``sendfile`` are refused as for files that cannot do it, which all callers know: a
socket would hold whole pages of a file that was cut off since, and count single bytes of them.
Reading with flags fails as on file systems without them, and advice on files is without effect:
``RWF_NOWAIT`` tells whether anybody on the machine has read a file, and advice makes it forgotten.
"""

import ctypes
import errno
import platform
import struct

_LOAD, _JEQ, _JGE, _JSET, _JUMP, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x05, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_AT_NUMBER, _AT_ARCHITECTURE = 0, 4
_AT_ARGUMENT = (16, 24, 32, 40, 48, 56)
_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000
_NAMESPACE_FLAGS = 0x7E020000
_CLONE3 = 435
_CLONE = {"x86_64": 56, "aarch64": 220}
_SOCKET = {"x86_64": (41, 53), "aarch64": (198, 199)}
_IOCTL = {"x86_64": 16, "aarch64": 29}
_FCNTL = {"x86_64": 72, "aarch64": 25}
_MMAP = {"x86_64": 9, "aarch64": 222}
_SETSOCKOPT = {"x86_64": 54, "aarch64": 208}
_SPLICE_AND_SENDFILE = {"x86_64": (275, 40), "aarch64": (76, 71)}
_PRCTL = {"x86_64": 157, "aarch64": 167}
_SETXATTR = {"x86_64": (188, 189, 190, 463), "aarch64": (5, 6, 7, 463)}
_FADVISE = {"x86_64": 221, "aarch64": 223}
_PREADV2_AND_PWRITEV2 = {"x86_64": (327, 328), "aarch64": (286, 287)}
_SOL_SOCKET, _SO_SNDBUF, _SO_RCVBUF = 1, 7, 8
_SO_ATTACH_FILTER, _SO_ATTACH_REUSEPORT_CBPF = 26, 51
_TERMINAL_INJECTION = (0x5412, 0x541C)
_LEASE_AND_NOTIFY = (1024, 1026)
_MAP_SHARED, _MAP_ANONYMOUS, _MAP_HUGETLB = 0x1, 0x20, 0x40000
_FAMILIES = (0, 1, 2, 10)
_NETLINK = 16
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER = 38, 22, 2
_PROCESS_CONTROL = (
    *(1, 2, 3, 4, 7, 8),  # signal at the parent's death, dumpable, capabilities over setuid
    *(15, 16, 21, 23, 27),  # name; whether there is a filter; bounding set; secure bits
    *(29, 30, 36, 37, 38, 39),  # timer slack, adopting orphans, no_new_privs
    *(40, 42, 47),  # address of the thread's id, huge pages off or not, ambient capabilities
    *(50, 51, 54, 55, 56),  # vectors, pointer keys and tagged addresses of aarch64
    0x41555856,  # the auxiliary vector
)
"""Operations of ``prctl`` that interpreters, C libraries and tools use."""

# System call: (x86_64, aarch64), from the kernel's asm/unistd headers.
_DENIED = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "seccomp": (317, 277),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "syslog": (103, 116),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263),
    "inotify_init1": (294, 26),
    "inotify_add_watch": (254, 27),
    "landlock_create_ruleset": (444, 444),
    "landlock_add_rule": (445, 445),
    "landlock_restrict_self": (446, 446),
    "cachestat": (451, 451),
    "io_setup": (206, 0),
    "vhangup": (153, 58),
    "mbind": (237, 235),
    "set_mempolicy": (238, 237),
    "get_mempolicy": (239, 236),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "set_mempolicy_home_node": (450, 450),
    "vmsplice": (278, 75),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
}
# iopl, ioperm, modify_ldt, uselib, ustat, sysfs, _sysctl, nfsservctl, module calls of old,
# inotify_init.
_DENIED_X86 = (172, 173, 154, 134, 136, 139, 156, 180, 174, 178, 177, 253)

_libc = ctypes.CDLL(None, use_errno=True)


class _Header(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


Instruction = tuple[int, int, int, int]


def deny_list(*, netlink: bool = False, machine: str | None = None) -> bytes:
    """The filter program for ``load``.

    Args:
        netlink: allow netlink sockets, without which ZeroMQ cannot open TCP sockets on the
            sandbox's own loopback; they belong to its network namespace.
        machine: ``x86_64`` or ``aarch64``; the running machine by default.

    Raises:
        NotImplementedError: there are no system call numbers for this machine.
    """
    machine = machine or platform.machine()
    if machine not in _AUDIT:
        raise NotImplementedError(f"no seccomp filter for machine {machine!r}; x86_64 or aarch64")
    program: list[Instruction] = [
        (_LOAD, 0, 0, _AT_ARCHITECTURE),
        (_JEQ, 1, 0, _AUDIT[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _AT_NUMBER),
    ]
    if machine == "x86_64":
        program += [(_JGE, 0, 1, _X32_BIT), _refuse(errno.ENOSYS)]
    program += _deny(_denied_numbers(machine))
    program += [(_JEQ, 0, 1, _CLONE3), _refuse(errno.ENOSYS)]
    program += _check_clone(_CLONE[machine])
    for number in _SOCKET[machine]:
        program += _check_family(number, (*_FAMILIES, _NETLINK) if netlink else _FAMILIES)
    program += _check_command(_IOCTL[machine], _TERMINAL_INJECTION)
    program += _check_command(_FCNTL[machine], _LEASE_AND_NOTIFY)
    program += _check_mapping(_MMAP[machine])
    program += _check_socket_options(_SETSOCKOPT[machine])
    program += _check_process_control(_PRCTL[machine])
    for number in _SPLICE_AND_SENDFILE[machine]:
        program += [(_JEQ, 0, 1, number), _refuse(errno.EINVAL)]
    for number in _SETXATTR[machine]:
        program += [(_JEQ, 0, 1, number), _refuse(errno.ENOTSUP)]
    for number in _PREADV2_AND_PWRITEV2[machine]:
        program += _check_flags(number)
    program += [(_JEQ, 0, 1, _FADVISE[machine]), _refuse(0)]
    program.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("HBBI", *instruction) for instruction in program)


def load(program: bytes) -> None:
    """Put this process and all its descendants under ``program`` for good.

    Raises:
        OSError: the kernel refused the filter.
    """
    buffer = ctypes.create_string_buffer(program, len(program))
    header = _Header(len(program) // 8, ctypes.addressof(buffer))
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if _libc.prctl(_PR_SET_SECCOMP, _FILTER, ctypes.byref(header)) != 0:
        raise OSError(ctypes.get_errno(), "the kernel refused the seccomp filter")


def _refuse(number: int) -> Instruction:
    return (_RETURN, 0, 0, _ERRNO | number)


def _denied_numbers(machine: str) -> list[int]:
    column = 0 if machine == "x86_64" else 1
    numbers = {pair[column] for pair in _DENIED.values()}
    return sorted(numbers | (set(_DENIED_X86) if column == 0 else set()))


def _deny(numbers: list[int]) -> list[Instruction]:
    """One comparison per system call, all jumping to one refusal: short programs load fast."""
    tests = [(_JEQ, len(numbers) - i, 0, number) for i, number in enumerate(numbers)]
    return [*tests, (_JUMP, 0, 0, 1), _refuse(errno.EPERM)]


def _check_clone(number: int) -> list[Instruction]:
    """No new namespaces through ``clone``; plain processes and threads pass."""
    return [
        (_JEQ, 0, 4, number),
        (_LOAD, 0, 0, _AT_ARGUMENT[0]),
        (_JSET, 0, 1, _NAMESPACE_FLAGS),
        _refuse(errno.EPERM),
        (_LOAD, 0, 0, _AT_NUMBER),
    ]


def _check_family(number: int, families: tuple[int, ...]) -> list[Instruction]:
    """Sockets of unix and internet families only: vsock, packet and the like are refused."""
    count = len(families)
    tests = [(_JEQ, count - i, 0, family) for i, family in enumerate(families)]
    return [
        (_JEQ, 0, count + 3, number),
        (_LOAD, 0, 0, _AT_ARGUMENT[0]),
        *tests,
        _refuse(errno.EAFNOSUPPORT),
        (_LOAD, 0, 0, _AT_NUMBER),
    ]


def _check_command(number: int, refused: tuple[int, int]) -> list[Instruction]:
    """Two commands of ``ioctl`` or ``fcntl`` are refused."""
    first, second = refused
    return [
        (_JEQ, 0, 5, number),
        (_LOAD, 0, 0, _AT_ARGUMENT[1]),
        (_JEQ, 1, 0, first),
        (_JEQ, 0, 1, second),
        _refuse(errno.EPERM),
        (_LOAD, 0, 0, _AT_NUMBER),
    ]


def _check_mapping(number: int) -> list[Instruction]:
    """No shared memory without a file, no huge pages: neither is counted as a process's memory."""
    return [
        (_JEQ, 0, 6, number),
        (_LOAD, 0, 0, _AT_ARGUMENT[3]),
        (_JSET, 2, 0, _MAP_HUGETLB),
        (_JSET, 0, 2, _MAP_ANONYMOUS),
        (_JSET, 0, 1, _MAP_SHARED),
        _refuse(errno.EPERM),
        (_LOAD, 0, 0, _AT_NUMBER),
    ]


def _check_socket_options(number: int) -> list[Instruction]:
    """Buffers of sockets keep their default size: asking for more succeeds, without effect.

    Programs for sockets are refused: all of a machine share the memory for compiled ones, and
    where none is left no sandbox can load its system call filter.
    """
    return [
        (_JEQ, 0, 10, number),
        (_LOAD, 0, 0, _AT_ARGUMENT[1]),
        (_JEQ, 0, 7, _SOL_SOCKET),
        (_LOAD, 0, 0, _AT_ARGUMENT[2]),
        (_JEQ, 3, 0, _SO_SNDBUF),
        (_JEQ, 2, 0, _SO_RCVBUF),
        (_JEQ, 2, 0, _SO_ATTACH_FILTER),
        (_JEQ, 1, 2, _SO_ATTACH_REUSEPORT_CBPF),
        _refuse(0),
        _refuse(errno.EPERM),
        (_LOAD, 0, 0, _AT_NUMBER),
    ]


def _check_process_control(number: int) -> list[Instruction]:
    """A few operations; others fail as on a Linux that does not know them."""
    count = len(_PROCESS_CONTROL)
    tests = [(_JEQ, count - i, 0, operation) for i, operation in enumerate(_PROCESS_CONTROL)]
    return [
        (_JEQ, 0, count + 3, number),
        (_LOAD, 0, 0, _AT_ARGUMENT[0]),
        *tests,
        _refuse(errno.EINVAL),
        (_LOAD, 0, 0, _AT_NUMBER),
    ]


def _check_flags(number: int) -> list[Instruction]:
    """No flags of ``preadv2`` and ``pwritev2``, whose sixth argument they are."""
    return [
        (_JEQ, 0, 4, number),
        (_LOAD, 0, 0, _AT_ARGUMENT[5]),
        (_JEQ, 1, 0, 0),
        _refuse(errno.ENOTSUP),
        (_LOAD, 0, 0, _AT_NUMBER),
    ]
