"""What this machine has, asked without loading torch."""

import os
import subprocess

from actors.inference.vllm_options import is_cpu_build
from launch.sizing.fit import Machine
from learner.engine.host_memory import host_memory

_LISTING = ("nvidia-smi", "--query-gpu=index,uuid,memory.total", "--format=csv,noheader,nounits")
_TIMEOUT_S = 20.0
_MIB = 1 << 20


def this_machine() -> Machine | None:
    """GPUs and free CPU memory; None where there should be GPUs but none can be listed.

    Raises:
        MachineError: vLLM is not installed.
    """
    host = host_memory().available
    if is_cpu_build():
        return Machine(gpus=(), host=host)
    try:
        listing = subprocess.run(
            _LISTING, capture_output=True, text=True, check=True, timeout=_TIMEOUT_S
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    gpus = gpus_in(listing, os.environ.get("CUDA_VISIBLE_DEVICES"))
    return Machine(gpus=gpus, host=host) if gpus else None


def gpus_in(listing: str, visible: str | None) -> tuple[int, ...]:
    """Bytes of each GPU that torch will see.

    Args:
        listing: lines ``index, uuid, MiB``.
        visible: CUDA_VISIBLE_DEVICES: indices or beginnings of identifiers; the first that is
            unknown ends the list.
    """
    rows = [[cell.strip() for cell in line.split(",")] for line in listing.splitlines()]
    rows = [row for row in rows if len(row) == 3 and row[2].isdecimal()]
    if visible is None:
        return tuple(int(row[2]) * _MIB for row in rows)
    found: list[int] = []
    for name in (part.strip() for part in visible.split(",")):
        chosen = [row for row in rows if name and (row[0] == name or row[1].startswith(name))]
        if len(chosen) != 1:
            break
        found.append(int(chosen[0][2]) * _MIB)
    return tuple(found)
