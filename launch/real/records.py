"""The record of the stages before a run: ``stages.json`` in the folder ``prepared`` of the run."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from common.errors import InputError
from common.json_output import json_text
from common.whole_file import write_whole
from launch.real.stages import Stage, StageRecord

RECORDS = "stages.json"


def read_records(prepared: Path) -> dict[Stage, StageRecord]:
    """What is kept of each stage that was begun.

    Raises:
        InputError: the file is none of ours.
    """
    file = prepared / RECORDS
    if not file.is_file():
        return {}
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
        return {Stage(name): StageRecord(**record) for name, record in table.items()}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{file} is no record of stages ({error}); remove the folder {prepared} to begin them "
            "again, or choose another name with --name"
        ) from error


def write_records(prepared: Path, records: Mapping[Stage, StageRecord]) -> None:
    """Replace the file in one step."""
    table = {stage.value: dataclasses.asdict(record) for stage, record in records.items()}
    write_whole(prepared / RECORDS, json_text(table, indent=1) + "\n")
