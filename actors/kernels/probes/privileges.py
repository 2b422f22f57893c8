"""Attacks that try to gain privileges: namespaces, mounts, capabilities, setuid, terminals."""

import contextlib
import fcntl
import glob
import os
import resource
import stat
import struct
import subprocess

from actors.kernels.probes.inside import Target, not_refused, system_call
from actors.kernels.probes.probe import Family, attack


@attack(Family.PRIVILEGES, control=True)
def make_namespaces(target: Target) -> str:
    """Unshares and clones each kind of namespace."""
    made = []
    for name, flag in (
        *(("mount", 0x20000), ("cgroup", 0x2000000), ("uts", 0x4000000), ("ipc", 0x8000000)),
        *(("user", 0x10000000), ("pid", 0x20000000), ("net", 0x40000000), ("time", 0x80)),
    ):
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(OSError):
                system_call("unshare", flag)
                os._exit(0)
            os._exit(1)
        if os.waitpid(pid, 0)[1] == 0:
            made.append(name)
    return ", ".join(made)


@attack(Family.PRIVILEGES, control=True)
def clone_into_namespaces(target: Target) -> str:
    """Clones a process into a new user namespace, by clone and by clone3."""
    made = []
    arguments = (0x10000000).to_bytes(8, "little") + bytes(24) + (17).to_bytes(8, "little")
    calls: tuple[tuple[str, tuple[int | bytes | None, ...]], ...] = (
        ("clone", (0x10000000 | 17, None, None, None, None)),
        ("clone3", (arguments + bytes(24), 64)),
    )
    for name, given in calls:
        with contextlib.suppress(OSError):
            pid = system_call(name, *given)
            if pid == 0:
                os._exit(0)
            os.waitpid(pid, 0)
            made.append(name)
    return ", ".join(made)


@attack(Family.PRIVILEGES, control=True)
def enter_namespaces_of_pid_1(target: Target) -> str:
    """Enters the namespaces of pid 1 and of its own processes."""
    entered = []
    for path in glob.glob("/proc/*/ns/net") + glob.glob("/proc/*/ns/mnt"):
        with contextlib.suppress(OSError):
            handle = os.open(path, os.O_RDONLY)
            try:
                system_call("setns", handle, 0x40000000)
                entered.append(path)
            finally:
                os.close(handle)
    return ", ".join(entered[:3])


@attack(Family.PRIVILEGES)
def mount_things(target: Target) -> str:
    """Mounts tmpfs and proc, binds / and makes /usr writable."""
    done = []
    here = b"/tmp"
    for source, place, kind, flags in (
        *((b"tmpfs", here, b"tmpfs", 0), (b"proc", here, b"proc", 0), (b"/", here, None, 4096)),
        *((None, b"/usr", None, 4096 | 32), (None, b"/", None, 1 << 18)),
    ):
        with contextlib.suppress(OSError):
            system_call("mount", source, place, kind, flags, None)
            done.append(f"{kind!r} flags {flags}")
    return ", ".join(done)


@attack(Family.PRIVILEGES)
def use_the_new_mount_calls(target: Target) -> str:
    """The same by fsopen, open_tree, move_mount and mount_setattr."""
    return not_refused(
        ("fsopen", (b"tmpfs", 0)),
        ("open_tree", (-100, b"/", 1)),
        ("move_mount", (-1, b"", -1, b"", 0)),
        ("fspick", (-100, b"/", 0)),
        ("mount_setattr", (-1, b"", 0, None, 0)),
    )


@attack(Family.PRIVILEGES)
def unmount_what_covers_the_host(target: Target) -> str:
    """Unmounts the private folders, /proc and /, and changes the root."""
    done = []
    for place in (b"/proc", b"/dev/shm", b"/tmp", b"/workspace", b"/usr", b"/"):
        with contextlib.suppress(OSError):
            system_call("umount2", place, 2)
            done.append(place.decode())
    for name, arguments in (("pivot_root", (b"/tmp", b"/tmp")), ("chroot", (b"/tmp",))):
        with contextlib.suppress(OSError):
            system_call(name, *arguments)
            done.append(name)
    return ", ".join(done)


@attack(Family.PRIVILEGES)
def become_root(target: Target) -> str:
    """Sets user and group ids to 0 and joins groups."""
    done = []
    for call, argument in ((os.setuid, 0), (os.setgid, 0), (os.seteuid, 0), (os.setuid, 65534)):
        with contextlib.suppress(OSError):
            call(argument)
            done.append(f"{call.__name__}({argument})")
    with contextlib.suppress(OSError):
        os.setgroups([0])
        done.append("setgroups([0])")
    return ", ".join(done)


@attack(Family.PRIVILEGES)
def gain_by_setuid_programs(target: Target) -> str:
    """Starts setuid programs; the loader stays silent about their ids if they gained any."""
    gained, tried = [], 0
    for path in glob.glob("/usr/bin/*"):
        if not os.path.isfile(path) or not os.stat(path).st_mode & stat.S_ISUID:
            continue
        tried += 1
        with subprocess.Popen(
            [path, "--version"],
            env={"LD_SHOW_AUXV": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as process:
            words = (process.stdout.read() if process.stdout else b"").split()
            process.kill()
        if b"AT_SECURE:" not in words or words[words.index(b"AT_SECURE:") + 1] != b"0":
            gained.append(path)
    print(f"tried {tried}")
    return ", ".join(gained)


@attack(Family.PRIVILEGES, control=True)
def gain_capabilities(target: Target) -> str:
    """Asks for all capabilities, and looks at what it has."""
    header = struct.pack("Ii", 0x20080522, 0)
    with contextlib.suppress(OSError):
        system_call("capset", header, struct.pack("6I", 1 << 21, 1 << 21, 0, 0, 0, 0))
        return "CAP_SYS_ADMIN"
    with open("/proc/self/status") as file:
        lines = [line.split() for line in file if line.startswith(("CapPrm", "CapEff", "CapBnd"))]
    return ", ".join(f"{name} {value}" for name, value in lines if int(value, 16))


@attack(Family.PRIVILEGES)
def raise_its_own_limits(target: Target) -> str:
    """Raises hard limits, its priority and its scheduling class."""
    raised = []
    for name in ("NPROC", "DATA", "AS", "NOFILE", "FSIZE", "CORE"):
        which = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(which)[1]
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(which, (hard + 1, hard + 1))
            raised.append(name)
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -5)
        raised.append("priority")
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        raised.append("real time")
    return ", ".join(raised)


@attack(Family.PRIVILEGES)
def rewrite_its_user_map(target: Target) -> str:
    """Maps further user ids into its namespace, and allows nested namespaces again."""
    done = []
    for path, text in (
        ("/proc/self/uid_map", "0 0 1"),
        ("/proc/self/gid_map", "0 0 1"),
        ("/proc/self/setgroups", "allow"),
        ("/proc/sys/user/max_user_namespaces", "1000"),
    ):
        with contextlib.suppress(OSError), open(path, "w") as file:
            file.write(text)
            file.flush()
            done.append(path)
    return ", ".join(done)


@attack(Family.PRIVILEGES)
def type_into_a_terminal(target: Target) -> str:
    """Puts characters into a terminal's input (TIOCSTI), also with high bits set."""
    handles = []
    with contextlib.suppress(OSError):
        handles.append(os.open("/dev/tty", os.O_RDWR))
    with contextlib.suppress(OSError):
        handles += os.openpty()
    done = []
    for handle in handles:
        for request in (0x5412, 0x5412 | 1 << 32, 0x541C):
            with contextlib.suppress(OSError):
                system_call("ioctl", handle, request, b"x")
                done.append(hex(request))
        with contextlib.suppress(OSError):
            fcntl.ioctl(handle, 0x540E, 0)
    for handle in handles:
        os.close(handle)
    return ", ".join(done)
