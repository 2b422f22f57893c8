"""The kernels' own Python: a small environment that any user id can reach.

The sandbox drops to an unprivileged user id before it starts, so nothing it runs may lie below a
private home folder. The runtime therefore lies in ``/var/lib/lzero/<hash>`` (as root) or in
``.venv/lzero-kernel/<hash>``, and holds its own copy of the interpreter unless that one is below
``/usr``, which every sandbox sees. ``python -m actors.kernels.runtime`` makes it.
"""

import argparse
import compileall
import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from actors.kernels.interpreter import install_interpreter, interpreter_library_path
from common.child_process import SOURCE_ROOT
from common.errors import MachineError

_LOCK = SOURCE_ROOT / "requirements" / "kernel.lock"
_SOURCES = Path(__file__).resolve().parent / "sandboxed"
_READY = "ready"
_LAYOUT = "3"
"""Raise when the way the runtime is put together changes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RuntimePaths:
    """Where the runtime lies on the host.

    Attributes:
        prefix: the environment; ``bin/python3`` in it is the interpreter.
        sources: folder that holds ``actors/kernels/sandboxed``.
        library_path: folder with the interpreter's shared libraries, as seen in the sandbox.
    """

    prefix: Path
    sources: Path
    library_path: str


def ensure_runtime() -> RuntimePaths:
    """Make the runtime if it is not there; does nothing the second time.

    Raises:
        MachineError: pip failed; its last lines are in the message.
    """
    prefix = _prefix()
    if not (prefix / _READY).exists():
        _build(prefix)
    return find_runtime()


def find_runtime() -> RuntimePaths:
    """The runtime that ``make setup`` made.

    Raises:
        MachineError: there is none for this lock file and this Python.
    """
    prefix = _prefix()
    if not (prefix / _READY).exists():
        raise MachineError(
            f"the kernels' Python runtime is missing, expected at {prefix}; run `make setup`"
        )
    return RuntimePaths(
        prefix=prefix,
        sources=_install_sources(prefix),
        library_path=interpreter_library_path(inside="/opt/rt"),
    )


def remove_runtime() -> None:
    """Remove the runtime of this lock file and this Python."""
    shutil.rmtree(_prefix(), ignore_errors=True)
    with contextlib.suppress(OSError):
        _base().rmdir()


def _base() -> Path:
    return Path("/var/lib/lzero") if os.geteuid() == 0 else Path(sys.prefix) / "lzero-kernel"


def _prefix() -> Path:
    parts = (_LAYOUT, sys.version, sys.base_prefix, _LOCK.read_text())
    return _base() / hashlib.blake2b("\n".join(parts).encode(), digest_size=8).hexdigest()


def _build(prefix: Path) -> None:
    """Build next to the final place and rename, so that a half-made runtime is never used."""
    started = time.monotonic()
    _say(f"making the notebook kernels' runtime in {prefix}")
    prefix.parent.mkdir(parents=True, exist_ok=True)
    prefix.parent.chmod(0o755)
    work = Path(tempfile.mkdtemp(prefix=".making-", dir=prefix.parent))
    try:
        python = install_interpreter(work)
        _install_packages(python)
        (work / _READY).touch()
        work.chmod(0o755)
        shutil.rmtree(prefix, ignore_errors=True)
        work.rename(prefix)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    _say(f"made the notebook kernels' runtime in {time.monotonic() - started:.0f} s")


def _install_packages(python: Path) -> None:
    """Install the lock file with the pip of the running environment."""
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    command += ["--python", str(python), "install", "--no-input", "--no-deps", "-r", str(_LOCK)]
    old_umask = os.umask(0o022)
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    finally:
        os.umask(old_umask)
    if result.returncode != 0:
        last = "\n".join((result.stdout + result.stderr).strip().splitlines()[-15:])
        raise MachineError(
            f"pip could not install {_LOCK.name} into the kernels' runtime "
            f"(exit code {result.returncode}); its last lines:\n{last}"
        )


def _install_sources(prefix: Path) -> Path:
    """Copy the sandboxed sources, keyed by their content; the repository may be private."""
    digest = hashlib.blake2b(digest_size=8)
    files = sorted(_SOURCES.glob("*.py"))
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    target = prefix / f"sources-{digest.hexdigest()}"
    if target.exists():
        return target
    work = Path(tempfile.mkdtemp(prefix=".making-", dir=prefix))
    package = work / "actors" / "kernels" / "sandboxed"
    package.mkdir(parents=True)
    for file in files:
        shutil.copyfile(file, package / file.name)
    compileall.compile_dir(work, quiet=2, stripdir=str(work))
    for path in (work, *work.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    try:
        work.rename(target)
    except OSError:  # another process was faster
        shutil.rmtree(work, ignore_errors=True)
    return target


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    """Make the runtime, or remove it with ``--remove``."""
    parser = argparse.ArgumentParser(description="The notebook kernels' own Python runtime.")
    parser.add_argument("--remove", action="store_true", help="remove it instead of making it")
    if parser.parse_args().remove:
        remove_runtime()
        return 0
    try:
        ensure_runtime()
    except MachineError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
