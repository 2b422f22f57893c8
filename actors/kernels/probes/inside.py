"""What every attack finds in its notebook: the baits of the host, and system calls by name.

The text of this file is the first cell of a kernel that is attacked from, so it imports the
standard library only.
"""

import ctypes
import errno
import platform
from collections.abc import Callable
from dataclasses import dataclass

LIBC = ctypes.CDLL(None, use_errno=True)
VICTIM_PORT = 47811
"""Where the sibling kernel listens on its own loopback."""
NUMBERS = {
    **{"mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51)},
    **{"fsopen": (430, 430), "fsmount": (432, 432), "open_tree": (428, 428)},
    **{"move_mount": (429, 429), "mount_setattr": (442, 442), "fspick": (433, 433)},
    **{"unshare": (272, 97), "setns": (308, 268), "clone": (56, 220), "clone3": (435, 435)},
    **{"ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271)},
    **{"kcmp": (312, 272), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438)},
    **{"add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219)},
    **{"bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282)},
    **{"io_uring_setup": (425, 425), "memfd_create": (319, 279), "memfd_secret": (447, 447)},
    **{"kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105)},
    **{"finit_module": (313, 273), "delete_module": (176, 106), "reboot": (169, 142)},
    **{"swapon": (167, 224), "swapoff": (168, 225), "syslog": (103, 116), "acct": (163, 89)},
    **{"settimeofday": (164, 170), "clock_settime": (227, 112), "clock_adjtime": (305, 266)},
    **{"sethostname": (170, 161), "setdomainname": (171, 162), "fanotify_init": (300, 262)},
    **{"name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265)},
    **{"shmget": (29, 194), "msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180)},
    **{"iopl": (172, -1), "ioperm": (173, -1), "modify_ldt": (154, -1), "ioctl": (16, 29)},
    **{"capset": (126, 91), "socket": (41, 198), "setuid": (105, 146), "setgid": (106, 144)},
    **{"inotify_init": (253, -1), "inotify_init1": (294, 26), "inotify_add_watch": (254, 27)},
    **{"vmsplice": (278, 75), "io_setup": (206, 0), "seccomp": (317, 277)},
    **{"landlock_create_ruleset": (444, 444), "landlock_add_rule": (445, 445)},
    **{"landlock_restrict_self": (446, 446)},
    **{"setresuid": (117, 147), "setgroups": (116, 159), "vhangup": (153, 58)},
}
"""System call: (x86_64, aarch64), from the kernel's asm/unistd headers."""
HELD: list[object] = []
"""What an attack keeps until its kernel is gone."""
REFUSALS = (errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EAFNOSUPPORT)


@dataclass(frozen=True)
class Target:
    """What the attacks aim at; see ``bait.py``, which makes it, and ``run.py`` for the sibling.

    Attributes:
        token: in the names of all baits of one run.
        pid: a harmless process of the host.
        victim_pid: the sibling kernel, as the host sees it.
        shared_memory: key of a System V segment of the host.
        settings: files below /proc/sys that hold a number.
        processes, memory_mib, sandbox_memory_mib, workspace_mib, inodes, open_files,
            cpu_s: its limits.
    """

    token: str
    folder: str
    file: str
    repository: str
    socket_path: str
    abstract: str
    tcp_port: int
    tcp6_port: int
    udp_port: int
    shared_memory: int
    posix_memory: str
    settings: list[str]
    pid: int
    victim_pid: int
    processes: int
    memory_mib: int
    sandbox_memory_mib: int
    workspace_mib: int
    inodes: int
    open_files: int
    cpu_s: float


def system_call(name: str, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """Make a system call by name.

    Raises:
        OSError: it failed.
    """
    number = NUMBERS[name][platform.machine() == "aarch64"]
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    result: int = LIBC.syscall(ctypes.c_long(number), *words)
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result


def not_refused(*calls: tuple[str, tuple[int | bytes | None, ...]]) -> str:
    """Make calls that fail anyway; which of them got past the permission check, and how far."""
    passed = []
    for name, arguments in calls:
        try:
            passed.append(f"{name} = {system_call(name, *arguments)}")
        except OSError as error:
            if error.errno not in REFUSALS:
                passed.append(f"{name}: {errno.errorcode[error.errno or 0]}")
    return ", ".join(passed)


def judge(attack: Callable[[Target], str], target: Target) -> None:
    """Run an attack and print the verdict as the last line of the cell.

    An attack returns what it got hold of, or "" for nothing; what the system refuses it raises
    as OSError or MemoryError. Anything else is a mistake in the attack and no proof.
    """
    try:
        seen = attack(target)
    except (OSError, MemoryError) as error:
        number = getattr(error, "errno", None)
        reason = errno.errorcode.get(number or 0) or type(error).__name__
        print(f"blocked: {reason}", flush=True)
    except Exception as error:
        print(f"broken: {type(error).__name__}: {error}", flush=True)
    else:
        print(f"ESCAPED: {seen}" if seen else "blocked: nothing to be had", flush=True)
