"""Writes the trajectory store of a run: ``python -m learner.coordination.store_writer --folder F``.

consumes   what the learner has put into ``F`` (``learner.coordination.spool``)
produces   ``F/part-*.jsonl``
waits for  the next look; the end of the learner, which closes the standard input
"""

import argparse
import logging
import os
import select
import sys
from pathlib import Path

from common.errors import ProtocolError
from common.telemetry.log_lines import configure_logging
from common.telemetry.quiet_log import QuietLog
from common.wire.codec import decode
from common.wire.records import Trajectory
from learner.coordination.spool import SpoolReader
from learner.coordination.store import TrajectoryStore

log = logging.getLogger(__name__)

_LOOK_S = 0.1
_NICENESS = 19
"""People can wait."""


def write_all(reader: SpoolReader, store: TrajectoryStore, quiet: QuietLog) -> None:
    """Write a line for each message that is there."""
    for frames in reader:
        try:
            trajectory = decode(frames)
            if isinstance(trajectory, Trajectory):
                store.append(trajectory)
        except (OSError, ValueError, ProtocolError) as error:
            quiet.warning("trajectory not stored", "reason=%s", error)


def main() -> None:
    """Write until the learner is gone and nothing is left."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--limit-bytes", type=int, required=True)
    given = parser.parse_args()
    configure_logging("store")
    os.nice(_NICENESS)
    reader, quiet = SpoolReader(given.folder), QuietLog(log)
    store = TrajectoryStore(given.folder, limit_bytes=given.limit_bytes)
    is_over = False
    while not is_over:
        is_over = bool(select.select([sys.stdin], [], [], _LOOK_S)[0])
        write_all(reader, store, quiet)
    store.close()
    reader.close()


if __name__ == "__main__":
    main()
