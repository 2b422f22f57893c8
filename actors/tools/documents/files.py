"""What parsers of documents need, in a place that any user id can read: copies, keyed by content.

The repository and its environment may lie below a private home, which a sandbox's user cannot
enter. So the few sources and the libraries lie beside the kernels' Python, made once and shared by
all processes; see ``actors/kernels/runtime.py``.
"""

import compileall
import hashlib
import importlib.metadata
import importlib.util
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from actors.kernels.runtime import RuntimePaths, find_runtime
from common.errors import MachineError

LIBRARIES = ("trafilatura", "lxml_html_clean", "pypdf", "python-docx", "openpyxl", "msgpack")
_FOR_LOCKED_PDF = "cryptography"
_SOURCES = ("kinds.py", "text.py", "worker.py")


@dataclass(frozen=True, kw_only=True, slots=True)
class DocumentFiles:
    """Folders on the host.

    Attributes:
        runtime: the kernels' Python, which runs the parsers.
        sources: holds ``actors/tools`` with what the parser's process runs of this checkout.
        libraries: what that imports.
    """

    runtime: RuntimePaths
    sources: Path
    libraries: Path


def find_document_files() -> DocumentFiles:
    """The folders, made where they are missing; that takes a second, once.

    Raises:
        MachineError: the kernels' Python or a library is missing, or they cannot be copied.
    """
    runtime = find_runtime()
    try:
        return DocumentFiles(
            runtime=runtime,
            sources=_sources(runtime.prefix),
            libraries=_libraries(runtime.prefix),
        )
    except OSError as error:
        raise MachineError(
            f"the parsers of documents cannot be copied to {runtime.prefix}: {error}"
        ) from error


def _sources(prefix: Path) -> Path:
    files = [Path(__file__).with_name(name) for name in _SOURCES]
    content = b"\0".join(file.read_bytes() for file in files)

    def fill(folder: Path) -> None:
        package = folder / "actors" / "tools" / "documents"
        package.mkdir(parents=True)
        for file in files:
            shutil.copyfile(file, package / file.name)
        compileall.compile_dir(folder, quiet=2, stripdir=str(folder))

    return _published(prefix, "document-sources", content, fill)


def _libraries(prefix: Path) -> Path:
    found = _with_requirements((*LIBRARIES, _FOR_LOCKED_PDF))
    listed = sorted(f"{name} {library.version}" for name, library in found.items())

    def fill(folder: Path) -> None:
        for name, library in found.items():
            for source, relative in _files(name, library):
                target = folder / relative
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)  # with its time, which compiled files are checked by

    return _published(prefix, "document-libraries", "\n".join(listed).encode(), fill)


def _with_requirements(names: Iterable[str]) -> dict[str, importlib.metadata.Distribution]:
    """The installed packages ``names`` and all that they require; what is optional may lack."""
    found: dict[str, importlib.metadata.Distribution] = {}
    wanted = [canonicalize_name(name) for name in names]
    for name in wanted:
        if name in found:
            continue
        try:
            found[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            if name == _FOR_LOCKED_PDF:
                continue
            raise MachineError(
                f"the package {name}, which documents are read with, is not installed; "
                "run `make setup`"
            ) from None
        for text in found[name].requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                wanted.append(canonicalize_name(requirement.name))
    return found


def _files(name: str, library: importlib.metadata.Distribution) -> Iterable[tuple[Path, Path]]:
    """The files of a package that lie where modules are looked for, and their places there."""
    if not library.files:
        raise MachineError(
            f"the package {name} does not tell its files; install it with pip (make setup)"
        )
    for file in library.files:
        source, relative = Path(str(file.locate())), Path(file)
        if ".." in file.parts or not source.is_file():
            continue
        yield source, relative
        if source.suffix == ".py":  # compiled by whoever imported it first, where pip did not
            compiled = Path(importlib.util.cache_from_source(str(source)))
            if compiled.is_file():
                yield compiled, relative.parent / "__pycache__" / compiled.name


def _published(prefix: Path, kind: str, key: bytes, fill: Callable[[Path], None]) -> Path:
    """The folder of ``kind`` for ``key``, filled beside its place and put there in one step."""
    target = prefix / f"{kind}-{hashlib.blake2b(key, digest_size=8).hexdigest()}"
    if target.exists():
        return target
    work = Path(tempfile.mkdtemp(prefix=".making-", dir=prefix))
    try:
        fill(work)
        for path in (work, *work.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        work.rename(target)
    except OSError:
        if not target.exists():  # else another process was faster
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target
