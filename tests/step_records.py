"""Records of steps in which nothing is wrong, for a test to change."""

import dataclasses
from typing import Any

from common.telemetry.step_record import StepRecord


def make_record(step: int, **changes: Any) -> StepRecord:
    """Step ``step`` of a run that takes 2 s and 8 trajectories a step."""
    values: dict[str, Any] = {field.name: 0.0 for field in dataclasses.fields(StepRecord)}
    values |= {
        "step": step,
        "weight_version": step,
        "seconds": 2.0 * step,
        "step_s": 2.0,
        "trajectories": 8,
        "trajectories_trained": 8 * step,
        "trajectories_per_s": 4.0,
        "trajectories_per_s_mean": 4.0,
        "family_success": {"one_hop": 0.5, "two_hop": 0.25},
        "heldout": {},
        "heldout_versions": {},
        "scores": {},
        "diagnostics": {},
        "signal_share": 1.0,
        "parsed_share": 1.0,
        "cells_ok_share": 1.0,
        "staleness": {"0": 3, "1": 1},
        "dropped": {},
        "masked": {},
    }
    return StepRecord(**{**values, **changes})
