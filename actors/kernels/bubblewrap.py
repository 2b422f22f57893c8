"""The outer sandbox: bubblewrap's arguments, and starting it safely."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

from actors.kernels.inner_files import inner_files
from actors.kernels.runtime import RuntimePaths
from common.errors import EnvironmentFault

HOST_UID = 64321
"""User and group id of sandboxes on the host when we run as root; belongs to nobody else."""
PYTHON = "/opt/rt/bin/python3"
"""The runtime's interpreter as seen inside."""
_SOURCES = "/opt/lzero"
_SHARED_MEMORY_BYTES = 16 << 20
_CHECK_TIMEOUT_S = 20
_MEBIBYTE = 1 << 20
_INSTALL = "apt-get install bubblewrap"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sandbox:
    """What varies between the outer sandboxes of the two launchers.

    Attributes:
        read_only: further folders of the host, and where they are inside.
        sealed: nothing inside can be written, nor a file be made.
        nested: processes inside make further user namespaces (the zygote).
        as_init: the command itself is pid 1.
        folders: further empty folders, mount points for what the sandbox mounts itself.
    """

    runtime: RuntimePaths
    workspace_mib: int
    read_only: tuple[tuple[str, str], ...] = ()
    sealed: bool = False
    nested: bool = False
    as_init: bool = False
    folders: tuple[str, ...] = ()


def arguments(sandbox: Sandbox) -> list[str]:
    """Bubblewrap's options: all namespaces, no environment, nothing of the host but /usr."""
    size = str(sandbox.workspace_mib * _MEBIBYTE)
    options = _words("--unshare-all --unshare-user --die-with-parent --new-session --clearenv")
    options += _words("--uid 1000 --gid 1000 --hostname sandbox --cap-drop ALL")
    options += _words("--ro-bind /usr /usr --symlink usr/lib /lib --symlink usr/lib64 /lib64")
    options += _words("--symlink usr/bin /bin --symlink usr/sbin /sbin --proc /proc --dev /dev")
    options += _words(f"--size {_SHARED_MEMORY_BYTES} --tmpfs /dev/shm --remount-ro /dev")
    options += _words(f"--size {size} --perms 1777 --tmpfs /tmp")
    options += _words(f"--size {size} --perms 0700 --tmpfs /workspace")
    options += ["--ro-bind", str(sandbox.runtime.prefix), "/opt/rt"]
    options += ["--ro-bind", str(sandbox.runtime.sources), _SOURCES]
    for source, place in sandbox.read_only:
        options += ["--ro-bind", source, place]
    if sandbox.sealed:
        options += _words("--remount-ro /tmp --remount-ro /workspace --remount-ro /dev/shm")
    for folder in sandbox.folders:
        options += ["--dir", folder]
    for name, value in environment(sandbox.runtime).items():
        options += ["--setenv", name, value]
    if not sandbox.nested:
        options.append("--disable-userns")
    if sandbox.as_init:
        options.append("--as-pid-1")
    return [*options, "--chdir", "/workspace", "--remount-ro", "/"]


def start(
    sandbox: Sandbox,
    command: Sequence[str],
    *,
    pass_fds: Sequence[int] = (),
    stdin: int | None = None,
    stderr: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start ``command`` in a sandbox, with an empty environment and an unprivileged user id.

    Call it from the main thread: the sandbox dies with the thread that started it. Options go
    through a file so that they show up in no process list.
    """
    with inner_files() as (files, held), tempfile.TemporaryFile() as options:
        options.write("\0".join([*files, *arguments(sandbox), ""]).encode())
        options.seek(0)
        return subprocess.Popen(
            [*drop_privileges(), "bwrap", "--args", str(options.fileno()), "--", *command],
            pass_fds=[*pass_fds, *held, options.fileno()],
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL if stderr is None else stderr,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"},
        )


def check_sandbox(runtime: RuntimePaths) -> None:
    """Start one sandbox for real.

    Raises:
        EnvironmentFault: bubblewrap is missing or the machine denies what it needs.
    """
    if shutil.which("bwrap") is None:
        raise EnvironmentFault(
            "bubblewrap (bwrap), the sandbox of the notebook kernels, is not installed; "
            f"install it with: {_INSTALL}"
        )
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        raise EnvironmentFault(
            "setpriv is missing, which gives up root before a sandbox starts; "
            "install it with: apt-get install util-linux"
        )
    sandbox = Sandbox(runtime=runtime, workspace_mib=1)
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
        raise EnvironmentFault(f"bubblewrap could not start (code {code}): {text}. {advice(text)}")


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


def drop_privileges() -> list[str]:
    """Words before a command that make it run as ``HOST_UID``, if we are root."""
    if os.geteuid() != 0:
        return []
    who = [f"--reuid={HOST_UID}", f"--regid={HOST_UID}", "--clear-groups"]
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
