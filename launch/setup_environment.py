"""Makes ``.venv`` ready for a clone: ``make setup`` runs this with the system's Python.

Standard library only, and written so that an old Python can parse it and say that it is too old.
A stamp keyed by everything that decides the environment makes a second run do nothing.
"""

from __future__ import annotations

import collections
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
ENVIRONMENT = REPOSITORY / ".venv"
LOCK = REPOSITORY / "requirements" / "cpu.lock"
TEST_LOCK = REPOSITORY / "requirements" / "test.lock"
KERNEL_LOCK = REPOSITORY / "requirements" / "kernel.lock"
PYTHON = ENVIRONMENT / "bin" / "python"
STAMP = ENVIRONMENT / ".lzero-setup"
TEST_STAMP = ENVIRONMENT / ".lzero-setup-tests"
SECONDS = ENVIRONMENT / ".lzero-setup-seconds"
LOG = ENVIRONMENT / "setup.log"
OLDEST_PYTHON = (3, 11)
TORCH = "torch==2.13.0+cpu"
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
LAST_LINES = 25


class SetupError(Exception):
    """The environment cannot be made; the text says why and what to do."""


def main() -> int:
    """Set the clone up if anything changed since the last time; ``--tests`` also for tests."""
    started = time.monotonic()
    for_tests = "--tests" in sys.argv[1:]
    try:
        check_python(sys.version_info[:2])
        ensure_bubblewrap()
        if is_current(STAMP, fingerprint()) and has_kernel_runtime():
            SECONDS.write_text("0\n")
            if for_tests:
                build_for_tests()
            _say("set-up is up to date")
            return 0
        build()
        if for_tests:
            build_for_tests()
    except SetupError as error:
        sys.stderr.write(f"make setup: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("make setup: interrupted; run it again to go on\n")
        return 130
    seconds = time.monotonic() - started
    SECONDS.write_text(f"{seconds:.1f}\n")
    STAMP.write_text(fingerprint())
    _say(f"set-up finished in {seconds:.0f} s")
    return 0


def check_python(version: tuple[int, ...]) -> None:
    """Refuse an interpreter that the project cannot run on.

    Raises:
        SetupError: ``version`` is older than ``OLDEST_PYTHON``.
    """
    if tuple(version) < OLDEST_PYTHON:
        needed = ".".join(map(str, OLDEST_PYTHON))
        found = ".".join(map(str, version))
        raise SetupError(
            f"Python {needed} or newer is needed, but {sys.executable} is {found}; "
            f"name another one with: make setup PYTHON=python{needed}"
        )


def fingerprint() -> str:
    """A digest of everything that decides what the environment holds."""
    digest = hashlib.blake2b(digest_size=16)
    for path in (LOCK, TEST_LOCK, KERNEL_LOCK, REPOSITORY / "pyproject.toml", Path(__file__)):
        digest.update(path.read_bytes())
    for text in (str(REPOSITORY), sys.version):
        digest.update(text.encode())
    return digest.hexdigest()


def is_current(stamp: Path, expected: str) -> bool:
    """Whether ``stamp`` was left by a set-up with the fingerprint ``expected``."""
    return stamp.is_file() and stamp.read_text() == expected


def has_kernel_runtime() -> bool:
    """Whether the kernels' runtime is there; it lies outside the environment and is shared."""
    command = [str(PYTHON), "-c", "from actors.kernels.runtime import find_runtime; find_runtime()"]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=False).returncode == 0


def ensure_bubblewrap() -> None:
    """Install bubblewrap where it is missing and we may; else say how.

    Raises:
        SetupError: it is missing and cannot be installed from here.
    """
    if shutil.which("bwrap"):
        return
    may_install = os.geteuid() == 0 and shutil.which("apt-get") is not None
    if may_install:
        _say("installing bubblewrap (the sandbox of the notebook kernels) with apt-get")
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update"], ["install", "--yes", "bubblewrap"]):
            subprocess.run(
                ["apt-get", "--quiet", *command],
                env=environment,
                stdout=subprocess.DEVNULL,
                check=False,
            )
    if not shutil.which("bwrap"):
        raise SetupError(
            "bubblewrap (bwrap) is missing, the sandbox of the notebook kernels; install it with: "
            "sudo apt-get install bubblewrap"
        )


def build() -> None:
    """Create the environment step by step, from nothing or over a half-made one.

    Raises:
        SetupError: a step failed; its last output lines are in the text.
    """
    python, pip = str(PYTHON), _pip()
    _make_environment()
    torch = _Step(2, f"installing {TORCH} (the CPU build)")
    if torch.attempt([*pip, TORCH]) != 0:
        torch.require([*pip, TORCH, "--index-url", TORCH_INDEX])
    torch.finish()
    steps = (
        ("installing the pinned packages of requirements/cpu.lock", [*pip, "-r", str(LOCK)]),
        (
            "installing this clone, editable",
            [*pip, "--no-build-isolation", "--editable", str(REPOSITORY)],
        ),
        ("making the kernels' own Python runtime", [python, "-m", "actors.kernels.runtime"]),
    )
    for number, (title, command) in enumerate(steps, start=3):
        step = _Step(number, title)
        step.require(command)
        step.finish()


def build_for_tests() -> None:
    """Install what only tests and checks need, unless it is there.

    Raises:
        SetupError: pip failed; its last output lines are in the text.
    """
    if is_current(TEST_STAMP, fingerprint()):
        return
    step = _Step(6, "installing the tests' packages of requirements/test.lock")
    step.require([*_pip(), "-r", str(TEST_LOCK)])
    step.finish()
    TEST_STAMP.write_text(fingerprint())


def _pip() -> list[str]:
    options = ["--no-input", "--disable-pip-version-check", "--no-deps"]
    return [str(PYTHON), "-m", "pip", "install", *options]


def _make_environment() -> None:
    step = _Step(1, f"creating {ENVIRONMENT.name} with Python {sys.version.split()[0]}")
    if not PYTHON.exists():
        ENVIRONMENT.mkdir(exist_ok=True)
        LOG.write_text("")
        if step.attempt([sys.executable, "-m", "venv", str(ENVIRONMENT)]) != 0:
            shutil.rmtree(ENVIRONMENT, ignore_errors=True)
            raise SetupError(
                f"{sys.executable} cannot create a virtual environment; on Debian install it with: "
                "sudo apt-get install python3-venv"
            )
    step.finish()


class _Step:
    """One numbered step: its output goes to the log, one live line to the terminal."""

    def __init__(self, number: int, title: str) -> None:
        self._title = f"[{number}/{6 if '--tests' in sys.argv[1:] else 5}] {title}"
        self._started = time.monotonic()
        self._tail: collections.deque[str] = collections.deque(maxlen=LAST_LINES)
        self._live = sys.stdout.isatty()
        if not self._live:
            _say(f"{self._title} ...")

    def attempt(self, command: list[str]) -> int:
        """Run ``command`` and return its exit status."""
        with LOG.open("a") as log:
            process = subprocess.Popen(
                command,
                cwd=REPOSITORY,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
            assert process.stdout is not None  # noqa: S101 - we asked for a pipe
            for line in process.stdout:
                log.write(line)
                self._tail.append(line)
                self._show(line)
            return process.wait()

    def require(self, command: list[str]) -> None:
        """Run ``command``, which must succeed."""
        status = self.attempt(command)
        if status != 0:
            raise SetupError(
                f"{self._title} failed with exit status {status}; the last lines of {LOG}:\n"
                + "".join(self._tail)
            )

    def finish(self) -> None:
        """Say how long it took."""
        seconds = time.monotonic() - self._started
        prefix = "\r\x1b[K" if self._live else ""
        _say(f"{prefix}{self._title} ... done in {seconds:.0f} s")

    def _show(self, line: str) -> None:
        if self._live:
            seconds = time.monotonic() - self._started
            text = f"{self._title} ({seconds:.0f} s) {line.strip()}"
            width = shutil.get_terminal_size().columns - 1
            sys.stdout.write(f"\r\x1b[K{text[:width]}")
            sys.stdout.flush()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
