"""What ``lzero doctor`` asks of the Python packages: imports, versions, name clashes, the GPU.

Heavy packages are imported in a child process, which is started first and asked last, so that the
other checks run meanwhile.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from common.config import Config
from launch.doctor.findings import Finding, failure, fine, warning
from launch.doctor.package_names import HOME, Clash, find_clashes

_DISTRIBUTION = "l-zero"
_LOCK = HOME / "requirements" / "cpu.lock"
_IMPORT_TIMEOUT_S = 120.0
_SETUP = "run `make setup`"
_PROBE = """
import json, sys, time
found = {}
def note(name, look):
    started = time.monotonic()
    try:
        found[name] = look()
    except BaseException as error:
        found[name] = {"error": f"{type(error).__name__}: {error}"}
    found[name]["seconds"] = time.monotonic() - started
def torch():
    import torch
    here = torch.cuda.is_available()
    devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return {"version": torch.__version__, "cuda": torch.version.cuda, "available": here,
            "devices": [[d.name, d.total_memory] for d in devices]}
def vllm():
    import vllm
    from vllm import AsyncEngineArgs
    return {"version": vllm.__version__}
def flash_attn():
    import flash_attn
    return {"version": flash_attn.__version__}
note("torch", torch)
note("vllm", vllm)
if found["torch"].get("available"):
    note("flash_attn", flash_attn)
print("FOUND " + json.dumps(found))
"""
_PATH_PROBE = "import json, sys; print(json.dumps(sys.path))"


class HeavyImports:
    """Imports torch, vLLM and with a GPU flash-attn in a child process."""

    def __init__(self) -> None:
        """Start the child."""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close
        quiet = {"VLLM_LOGGING_LEVEL": "ERROR", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROBE],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, **quiet},
        )

    def check(self, _config: Config) -> Iterator[Finding]:
        """Wait for the child and tell what it could import."""
        try:
            output = self._process.communicate(timeout=_IMPORT_TIMEOUT_S)[0].decode()
        except subprocess.TimeoutExpired:
            self.close()
            fix = "look for a hanging file system or a machine without memory"
            yield failure("vllm", f"not imported after {_IMPORT_TIMEOUT_S:.0f} s", fix)
            return
        lines = [line for line in output.splitlines() if line.startswith("FOUND ")]
        if not lines:
            yield failure("vllm", f"importing it ended Python: {self._last_words()}", _SETUP)
            return
        yield from judge_imports(json.loads(lines[-1].removeprefix("FOUND ")))

    def close(self) -> None:
        """End the child."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()
        self._errors.close()

    def _last_words(self) -> str:
        self._errors.seek(0)
        words = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        return words[-1] if words else f"exit status {self._process.returncode}"


def judge_imports(found: dict[str, Any]) -> Iterator[Finding]:
    """Findings from what the child printed; pure."""
    for name in ("torch", "vllm"):
        if "error" in found[name]:
            yield failure(name, f"cannot be imported: {found[name]['error']}", _SETUP)
        else:
            said = f"{found[name]['version']}, imported in {found[name]['seconds']:.1f} s"
            yield fine(name, said)
    yield _judge_gpu(found["torch"])
    if "flash_attn" in found:
        yield _judge_flash_attention(found["flash_attn"])


def _judge_gpu(torch: dict[str, Any]) -> Finding:
    if not torch.get("available"):
        build = f"torch is built for CUDA {torch['cuda']}" if torch.get("cuda") else "CPU build"
        if torch.get("cuda") and os.path.exists("/dev/nvidiactl"):
            return warning("gpu", f"present, but torch cannot use it ({build})", "check the driver")
        return fine("gpu", f"none; runs on the CPU ({build})")
    devices = [f"{name} {memory / (1 << 30):.0f} GiB" for name, memory in torch["devices"]]
    return fine("gpu", f"{', '.join(devices)}; CUDA {torch['cuda']}, driver {_driver_version()}")


def _judge_flash_attention(found: dict[str, Any]) -> Finding:
    if "error" in found:
        fix = "pip install flash-attn, or the learner packs with slower attention"
        return warning("flash-attn", f"cannot be imported: {found['error']}", fix)
    return fine("flash-attn", str(found["version"]))


def _driver_version() -> str:
    with contextlib.suppress(OSError):
        text = Path("/proc/driver/nvidia/version").read_text().split()
        return next((word for word in text if word[:1].isdigit() and "." in word), "unknown")
    return "unknown"


def check_names(_config: Config) -> Iterator[Finding]:
    """Our package names mean this checkout, here and in another folder, and nobody shares one."""
    clashes = {clash.name: clash for clash in [*_clashes_in(Path.cwd()), *_clashes_in(Path("/"))]}
    for clash in clashes.values():
        yield failure("package names", str(clash), clash.fix)
    if not clashes:
        yield fine("package names", f"actors, common, launch, learner are {HOME}")
    doubles = {
        name: sorted(set(owners))
        for name, owners in metadata.packages_distributions().items()
        if name in {"vllm", "torch", "numpy", "transformers", "zmq", "jupyter_client", "IPython"}
        and len(set(owners)) > 1
    }
    for name, owners in doubles.items():
        fix = f"pip uninstall {owners[-1]}, then install the other one again"
        yield warning("distributions", f"{name} comes from {' and '.join(owners)}", fix)


def _clashes_in(folder: Path) -> list[Clash]:
    """Clashes as a process sees them that is started in ``folder``, as those of a run are."""
    output = subprocess.run(
        [sys.executable, "-c", _PATH_PROBE], cwd=folder, capture_output=True, text=True, check=True
    )
    path = [str(folder) if entry == "" else entry for entry in json.loads(output.stdout)]
    return find_clashes(path)


def check_versions(_config: Config) -> Iterator[Finding]:
    """What we need is installed, in versions that do, and as pinned."""
    unmet = [text for text in metadata.requires(_DISTRIBUTION) or [] if _is_unmet(text)]
    if unmet:
        yield failure("requirements", f"not met: {', '.join(unmet)}", _SETUP)
    differing = differing_pins(_LOCK.read_text().splitlines()) if _LOCK.is_file() else []
    if differing:
        shown = ", ".join(differing[:4]) + (", ..." if len(differing) > 4 else "")
        found = f"{len(differing)} differ from {_LOCK.name}: {shown}"
        yield warning("versions", found, f"{_SETUP}; on a GPU machine other versions are normal")
    elif not unmet:
        yield fine("versions", f"as pinned in {_LOCK.name}")


def _is_unmet(text: str) -> bool:
    requirement = Requirement(text)
    if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
        return False
    installed = _installed(requirement.name)
    return installed is None or not requirement.specifier.contains(installed, prereleases=True)


def differing_pins(lines: list[str]) -> list[str]:
    """Pins that are not what is installed, as ``name 1.0 (pinned 1.1)``."""
    differing = []
    for line in lines:
        name, separator, version = line.partition(";")[0].strip().partition("==")
        if not separator or line.startswith("#"):
            continue
        installed = _installed(name)
        if installed != version:
            differing.append(f"{name} {installed or 'missing'} (pinned {version})")
    return differing


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
