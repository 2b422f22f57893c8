"""What comes before the training of a pretrained model, and what of it is left to do. Pure.

A stage that was finished is not repeated. Its record keeps a fingerprint of the settings that it,
and all stages it builds on, was made with: what was finished with other settings is never mixed
with what would be made now.
"""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from common.errors import InputError


class Stage(StrEnum):
    """What is done, in this order; then the run itself follows."""

    BRING = "bring the model"
    IMPORT = "import and check it"
    UNTOUCHED = "ask it as it came"
    TRACES = "write traces"
    WARM_START = "warm start"


BUILDS_ON: Mapping[Stage, tuple[Stage, ...]] = {
    Stage.BRING: (),
    Stage.IMPORT: (Stage.BRING,),
    Stage.UNTOUCHED: (Stage.IMPORT,),
    Stage.TRACES: (),
    Stage.WARM_START: (Stage.IMPORT, Stage.TRACES),
}
"""Whose results a stage uses."""

Action = Literal["skip", "resume", "begin"]


@dataclass(frozen=True, kw_only=True, slots=True)
class StageRecord:
    """What is kept of a stage that was begun; ``seconds`` add up over attempts."""

    fingerprint: str
    finished: bool
    seconds: float = 0.0


def fingerprints(settings: Mapping[Stage, str]) -> dict[Stage, str]:
    """A fingerprint of each stage's own settings and those of the stages it builds on.

    Args:
        settings: of every stage, as text that is the same for the same settings.
    """
    made: dict[Stage, str] = {}
    for stage in Stage:
        parts = [settings[stage], *(made[below] for below in BUILDS_ON[stage])]
        made[stage] = hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()
    return made


def action_for(
    stage: Stage, record: StageRecord | None, wanted: str, *, is_present: bool
) -> Action:
    """What to do about a stage.

    Args:
        stage: which.
        record: what is kept of it, if it was begun.
        wanted: the fingerprint that it has to have.
        is_present: whether its result is there.

    Raises:
        InputError: it was finished with other settings.
    """
    if record is None:
        return "begin"
    if record.fingerprint == wanted:
        return "resume" if not record.finished else "skip" if is_present else "begin"
    if record.finished and is_present:
        raise InputError(
            f"the stage '{stage}' of this run was finished with other settings than those given "
            "now; give the earlier ones, or choose another name (make real RUN=..., --name)"
        )
    return "begin"


def actions(
    records: Mapping[Stage, StageRecord],
    wanted: Mapping[Stage, str],
    present: Collection[Stage],
) -> dict[Stage, Action]:
    """What to do about every stage, in order.

    Raises:
        InputError: one was finished with other settings.
    """
    return {
        stage: action_for(stage, records.get(stage), wanted[stage], is_present=stage in present)
        for stage in Stage
    }
