"""The trajectory store's own process writes every line, whoever is killed, and no line twice."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from common.wire.codec import encode
from common.wire.records import Trajectory
from learner.coordination.spool import Spool, SpoolReader, waiting_files
from learner.coordination.store import TrajectoryStore
from learner.coordination.store_process import StoreProcess
from tests.makers import make_trajectory

LIMIT = 1 << 20

LEARNER = """
import sys
from pathlib import Path
from common.wire.codec import encode
from learner.coordination.store_process import StoreProcess
from tests.makers import make_trajectory
store = StoreProcess(Path(sys.argv[1]), limit_bytes=1 << 20)
for number in range(200):
    made = make_trajectory(f"t{number}")
    store.append(made, encode(made))
print(store.pid, flush=True)
sys.stdin.read()
"""


def made(number: int) -> Trajectory:
    return make_trajectory(f"t{number}")


def lines_in(folder: Path) -> list[str]:
    """Ids in the store, in order."""
    parts = sorted(folder.glob("part-*.jsonl"))
    return [json.loads(x)["trajectory_id"] for part in parts for x in part.read_text().splitlines()]


@contextmanager
def a_learner(folder: Path) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """A process that has put 200 trajectories into a store, and the store's process."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", LEARNER, str(folder)]
    with subprocess.Popen(
        command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as learner:
        assert learner.stdout is not None
        yield learner, int(learner.stdout.readline())
        learner.kill()


def test_the_process_writes_what_the_store_would_write(tmp_path: Path) -> None:
    store = StoreProcess(tmp_path / "process", limit_bytes=LIMIT)
    for number in range(3):
        store.append(made(number), encode(made(number)))
    store.close()
    plain = TrajectoryStore(tmp_path / "plain", limit_bytes=LIMIT)
    for number in range(3):
        plain.append(made(number))
    plain.close()

    names = [path.name for path in sorted((tmp_path / "process").iterdir())]
    assert names == ["part-00000.jsonl"], "nothing else is left"
    written = (tmp_path / "process" / "part-00000.jsonl").read_text()
    assert written == (tmp_path / "plain" / "part-00000.jsonl").read_text()


def test_a_learner_that_is_killed_loses_no_line(tmp_path: Path) -> None:
    with a_learner(tmp_path) as (learner, _):
        learner.kill()
    StoreProcess(tmp_path, limit_bytes=LIMIT).close()  # waits for the one before

    assert lines_in(tmp_path) == [f"t{number}" for number in range(200)]


def test_where_all_are_killed_the_next_learner_has_the_lines_written(tmp_path: Path) -> None:
    with a_learner(tmp_path) as (learner, store):
        os.kill(store, signal.SIGKILL)
        learner.kill()
    StoreProcess(tmp_path, limit_bytes=LIMIT).close()

    assert set(lines_in(tmp_path)) == {f"t{number}" for number in range(200)}
    assert len(lines_in(tmp_path)) <= 201, "the one that was being written may be there twice"


def test_a_process_that_is_killed_is_started_again(tmp_path: Path) -> None:
    store = StoreProcess(tmp_path, limit_bytes=LIMIT)
    store.append(made(0), encode(made(0)))
    os.kill(store.pid, signal.SIGKILL)
    store.append(made(1), encode(made(1)))
    store.close()

    assert lines_in(tmp_path) == ["t0", "t1"]


def test_messages_come_out_as_they_went_in_from_file_to_file(tmp_path: Path) -> None:
    spool, reader = Spool(tmp_path, limit_bytes=16 * 40), SpoolReader(tmp_path)
    sent = [[b"head", bytes(number)] for number in range(12)]
    for message in sent[:7]:
        spool.append(message)
    came = list(reader)
    for message in sent[7:]:
        spool.append(message)
    came += list(reader)

    assert came == sent
    assert len(waiting_files(tmp_path)) == 1, "what was read is gone"
    assert list(reader) == []


def test_a_message_that_is_not_whole_yet_waits_for_its_rest(tmp_path: Path) -> None:
    Spool(tmp_path, limit_bytes=LIMIT).append([b"one"])
    Spool(tmp_path, limit_bytes=LIMIT).append([b"two", b"three"])
    (path,) = (p for p in waiting_files(tmp_path).values() if b"three" in p.read_bytes())
    whole = path.read_bytes()
    reader = SpoolReader(tmp_path)
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        assert [frames for frames in reader if frames != [b"one"]] == []
    path.write_bytes(whole)

    assert list(reader) == [[b"two", b"three"]]


def test_beyond_its_room_the_oldest_messages_are_gone(tmp_path: Path) -> None:
    spool = Spool(tmp_path, limit_bytes=16)  # each message fills a file
    for number in range(40):
        spool.append([b"%d" % number])

    assert [int(frames[0]) for frames in SpoolReader(tmp_path)] == list(range(25, 40))


def test_a_full_disk_leaves_no_half_of_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path, limit_bytes=LIMIT)
    really = os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda file, data: really(file, data[:5]))
        with pytest.raises(OSError, match="only a part"):
            spool.append([b"lost"])
    spool.append([b"kept"])

    assert list(SpoolReader(tmp_path)) == [[b"kept"]]


def test_without_room_for_another_file_the_one_there_is_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError("no space left")

    spool = Spool(tmp_path, limit_bytes=16)  # each message fills a file
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", full)
        spool.append([b"one"])
        spool.append([b"two"])
    spool.append([b"three"])

    assert list(SpoolReader(tmp_path)) == [[b"one"], [b"two"], [b"three"]]
    assert len(waiting_files(tmp_path)) == 1
