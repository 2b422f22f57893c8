"""The outer sandbox: bubblewrap's arguments, and starting it safely."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

from actors.kernels.inner_files import inner_files
from actors.kernels.runtime import RuntimePaths
from actors.kernels.sandboxed import mounts
from common.errors import MachineError

HOST_UID = 64321
"""User and group id on the host of what is no kernel, when we run as root."""
PYTHON = "/opt/rt/bin/python3"
"""The runtime's interpreter as seen inside."""
_SOURCES = "/opt/lzero"
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_FOR_MOUNTS = ("CAP_SYS_ADMIN", "CAP_SYS_RESOURCE", "CAP_NET_ADMIN", "CAP_SETPCAP")
_SACRIFICE_FIRST = ("choom", "-n", "1000", "--")
"""Where memory runs out, Linux ends a sandbox before any other process."""
_CHECK_TIMEOUT_S = 20
_MEBIBYTE = 1 << 20
_INSTALL = "apt-get install bubblewrap"


@dataclass(frozen=True, kw_only=True, slots=True)
class OuterSandbox:
    """What varies between the outer sandboxes of the launchers.

    Attributes:
        read_only: further folders of the host, and where they are inside.
        nested: processes inside make further user namespaces (the zygote).
        as_init: the command itself is pid 1, and mounts what bubblewrap cannot, see
            ``sandboxed/mounts.py``; it keeps the capabilities for that, and must drop them.
        folders: further empty folders, mount points for what the sandbox mounts itself.
        user_namespace: descriptor of one to enter, see ``user_namespaces.py``; else a new one.
        capabilities: of the user namespace, for the command.
    """

    runtime: RuntimePaths
    workspace_mib: int
    read_only: tuple[tuple[str, str], ...] = ()
    nested: bool = False
    as_init: bool = False
    folders: tuple[str, ...] = ()
    user_namespace: int | None = None
    capabilities: tuple[str, ...] = ()


def arguments(sandbox: OuterSandbox) -> list[str]:
    """Bubblewrap's options: all namespaces, no environment, nothing of the host but /usr."""
    size = str(sandbox.workspace_mib * _MEBIBYTE)
    options = _namespaces(sandbox) + _words("--die-with-parent --new-session --clearenv")
    options += _words("--uid 1000 --gid 1000 --hostname sandbox --cap-drop ALL")
    for capability in sandbox.capabilities:
        options += ["--cap-add", capability]
    options += _words("--ro-bind /usr /usr --symlink usr/lib /lib --symlink usr/lib64 /lib64")
    options += _words("--symlink usr/bin /bin --symlink usr/sbin /sbin --proc /proc")
    options += _devices()
    options += _words(f"--size {size} --perms 1777 --tmpfs /tmp")
    options += _words(f"--size {size} --perms 0700 --tmpfs /workspace")
    options += _words("--perms 0755 --dir /opt")  # the zygote's forks are other users than it
    options += ["--ro-bind", str(sandbox.runtime.prefix), "/opt/rt"]
    options += ["--ro-bind", str(sandbox.runtime.sources), _SOURCES]
    for source, place in sandbox.read_only:
        options += ["--ro-bind", source, place]
    for folder in sandbox.folders:
        options += ["--dir", folder]
    for name, value in environment(sandbox.runtime).items():
        options += ["--setenv", name, value]
    if sandbox.as_init:
        options += ["--as-pid-1", *_words(" ".join(f"--cap-add {name}" for name in _FOR_MOUNTS))]
    elif not sandbox.nested:
        options.append("--disable-userns")
    return [*options, "--chdir", "/workspace", "--remount-ro", "/"]


def _devices() -> list[str]:
    """A /dev without terminals.

    /dev/zero is /dev/full, which reads alike but cannot be mapped: memory shared through it would
    stay after it is unmapped, where no count of a process's memory finds it.
    """
    options = ["--tmpfs", "/dev"]
    for name in _DEVICES:
        source = "full" if name == "zero" else name
        options += ["--dev-bind", f"/dev/{source}", f"/dev/{name}"]
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        options += ["--symlink", f"/proc/self/fd/{number}", f"/dev/{name}"]
    options += _words("--symlink /proc/self/fd /dev/fd --symlink pts/ptmx /dev/ptmx --dir /dev/pts")
    options += _words(
        f"--size {mounts.SHARED_MEMORY_MIB * _MEBIBYTE} --perms 1777 --tmpfs /dev/shm"
    )
    return [*options, "--remount-ro", "/dev"]


def _namespaces(sandbox: OuterSandbox) -> list[str]:
    if sandbox.user_namespace is None:
        return _words("--unshare-all --unshare-user")
    own = _words("--unshare-ipc --unshare-pid --unshare-net --unshare-uts --unshare-cgroup-try")
    return ["--userns", str(sandbox.user_namespace), *own]


def start(
    sandbox: OuterSandbox,
    command: Sequence[str],
    *,
    uid: int = HOST_UID,
    pass_fds: Sequence[int] = (),
    stdin: int | None = None,
    stderr: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start ``command`` in a sandbox, with an empty environment, and as ``uid`` if we are root.

    Call it from the main thread: the sandbox dies with the thread that started it. Options go
    through a file so that they show up in no process list.
    """
    with inner_files() as (files, held), tempfile.TemporaryFile() as options:
        options.write("\0".join([*files, *arguments(sandbox), ""]).encode())
        options.seek(0)
        entered = [] if sandbox.user_namespace is None else [sandbox.user_namespace]
        bubblewrap = ["bwrap", "--args", str(options.fileno()), "--"]
        return subprocess.Popen(
            [*_SACRIFICE_FIRST, *drop_privileges(uid), *bubblewrap, *command],
            pass_fds=[*pass_fds, *held, *entered, options.fileno()],
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL if stderr is None else stderr,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"},
        )


def check_sandbox(runtime: RuntimePaths) -> None:
    """Start one sandbox for real.

    Raises:
        MachineError: bubblewrap is missing or the machine denies what it needs.
    """
    if shutil.which("bwrap") is None:
        raise MachineError(
            "bubblewrap (bwrap), the sandbox of the notebook kernels, is not installed; "
            f"install it with: {_INSTALL}"
        )
    needed = ["choom", "setpriv"] if os.geteuid() == 0 else ["choom"]
    for program in needed:
        if shutil.which(program) is None:
            raise MachineError(
                f"{program}, which starts sandboxes with fewer rights, is missing; "
                "install it with: apt-get install util-linux"
            )
    sandbox = OuterSandbox(runtime=runtime, workspace_mib=1)
    with tempfile.TemporaryFile() as errors:
        process = start(sandbox, [PYTHON, "-I", "-c", "0"], stderr=errors.fileno())
        try:
            code = process.wait(_CHECK_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        errors.seek(0)
        text = errors.read().decode("utf-8", "replace").strip()
    if code != 0:
        raise MachineError(f"bubblewrap could not start (code {code}): {text}. {advice(text)}")


def advice(text: str) -> str:
    """What to do about an error message of bubblewrap."""
    for part, fix in _FIXES:
        if part in text:
            return fix
    return "See docs/sandbox.md."


_FIXES = (
    (
        "clone into new namespaces",
        'User namespaces cannot be nested here; kernel.launcher = "cold" (level B) does without',
    ),
    (
        "max_*_namespaces",
        "User namespaces are switched off; allow them: sysctl user.max_user_namespaces=15000",
    ),
    (
        "No permissions to create new namespace",
        "Unprivileged user namespaces are denied; on Debian: "
        "sysctl kernel.unprivileged_userns_clone=1; in Docker: --security-opt seccomp=unconfined",
    ),
    (
        "Can't mount proc",
        "The container masks /proc; start it with --security-opt systempaths=unconfined "
        "(Docker) or --security-opt unmask=ALL (Podman)",
    ),
    (
        "setting up uid map",
        "AppArmor or missing capabilities deny user namespaces; on Ubuntu: "
        "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
    ),
    (
        "/proc/sys/user/max_user_namespaces",
        "What bubblewrap starts has no capabilities, not even in its own namespaces: a profile of "
        "AppArmor takes them away (aa-disable /etc/apparmor.d/bwrap-userns-restrict)",
    ),
    ("mount_setattr", "Linux 5.14 or newer is needed"),
    (
        "RTM_NEWADDR",
        "AppArmor denies network namespaces; on Ubuntu: "
        "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
    ),
    (
        "Can't find source path",
        "The kernels' runtime cannot be reached by other user ids; run `make setup`",
    ),
)


def _words(text: str) -> list[str]:
    return text.split()


def drop_privileges(uid: int = HOST_UID) -> list[str]:
    """Words before a command that make it run as ``uid``, if we are root."""
    if os.geteuid() != 0:
        return []
    who = [f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    return ["setpriv", *who, "--"]


def environment(runtime: RuntimePaths) -> dict[str, str]:
    """The whole environment inside; one fixed hash seed, so that set order is reproducible."""
    return {
        "HOME": "/workspace",
        "PATH": "/opt/rt/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "TMPDIR": "/tmp",  # noqa: S108
        "LD_LIBRARY_PATH": runtime.library_path,
        "PYTHONPATH": _SOURCES,
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "IPYTHONDIR": "/workspace/.ipython",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
