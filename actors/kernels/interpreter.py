"""Puts a Python interpreter into a folder: by a virtual environment, or by copying it.

Below ``/usr`` the interpreter can be seen from the sandbox as it is. Anywhere else (pyenv, uv,
conda, a private home) the interpreter and its standard library are copied.
"""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

_VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
_LEFT_OUT = shutil.ignore_patterns(
    *("site-packages", "dist-packages", "test", "tests", "idlelib", "tkinter", "turtledemo"),
    *("ensurepip", "lib2to3", "config-*", "*.a"),
)


def install_interpreter(prefix: Path) -> Path:
    """Make ``prefix/bin/python3`` the running Python; the path to run pip with.

    Args:
        prefix: an existing, empty folder.
    """
    if _is_system_python():
        command = [sys.executable, "-m", "venv", "--without-pip", str(prefix)]
        subprocess.run(command, check=True)
        return prefix / "bin" / "python3"
    return _copy_interpreter(prefix)


def interpreter_library_path(*, inside: str) -> str:
    """Folder with libpython as the sandbox sees it, if ``prefix`` is bound at ``inside``."""
    return f"{sys.base_prefix}/lib" if _is_system_python() else f"{inside}/lib"


def _is_system_python() -> bool:
    return Path(sys.base_prefix).resolve().is_relative_to("/usr")


def _copy_interpreter(prefix: Path) -> Path:
    base = Path(sys.base_prefix)
    (prefix / "bin").mkdir()
    python = prefix / "bin" / _VERSION
    shutil.copy(Path(sys._base_executable).resolve(), python)  # type: ignore[attr-defined]
    for name in ("python3", "python"):
        (prefix / "bin" / name).symlink_to(_VERSION)
    library = Path(sysconfig.get_path("stdlib"))
    shutil.copytree(library, prefix / "lib" / _VERSION, symlinks=True, ignore=_LEFT_OUT)
    for shared in (base / "lib").glob("lib*.so*"):
        shutil.copy2(shared, prefix / "lib" / shared.name, follow_symlinks=False)
    (prefix / "lib" / _VERSION / "site-packages").mkdir()
    return prefix / "bin" / "python3"
