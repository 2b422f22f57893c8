"""Names what ends a rank from below torch: memory that is gone, ranks that did not come. Pure."""

import torch
import torch.distributed as dist

from common.config.learning import COLLECTIVE_TIMEOUT_S
from common.errors import MachineError

_NO_HOST_MEMORY = ("can't allocate memory", "not enough memory", "cannot allocate memory")
_NOT_IN_TIME = ("timed out waiting", "watchdog caught collective operation timeout", "wait timeout")
_GONE = ("connection closed by peer", "connection reset by peer", "broken pipe", "nccl error")

SMALLER = (
    "lower learner.pack_tokens, set learner.activation_checkpointing or learner.cpu_offload, or "
    "give it more learner.ranks"
)


class RankGoneError(MachineError):
    """Another rank ended; only that one knows of what."""


def named(error: BaseException) -> MachineError | None:
    """The failure in one sentence with what to do, if it is one of those known; else None."""
    text = " ".join(str(error).split())
    if isinstance(error, torch.OutOfMemoryError):
        return MachineError(
            f"the GPU is out of memory: {text[:200]}; the checkpoints before are kept; {SMALLER}"
        )
    if isinstance(error, MemoryError) or _says(text, _NO_HOST_MEMORY):
        return MachineError(
            f"the machine is out of memory: {text[:200] or type(error).__name__}; the checkpoints "
            f"before are kept; {SMALLER}"
        )
    if isinstance(error, dist.DistError | RuntimeError) and _says(text, _NOT_IN_TIME):
        return MachineError(
            "a collective operation hung: not every rank came to it within "
            f"{COLLECTIVE_TIMEOUT_S:.0f} s ({text[:200]}); the checkpoints before are kept; see "
            "above what the other ranks did last, and resume"
        )
    if isinstance(error, dist.DistError) or _says(text, _GONE):
        return RankGoneError(
            f"another rank of the learner is gone ({text[:200]}); the checkpoints before are kept; "
            "what ended it is in its own lines above; resume"
        )
    return None


def _says(text: str, phrases: tuple[str, ...]) -> bool:
    return any(phrase in text.lower() for phrase in phrases)
