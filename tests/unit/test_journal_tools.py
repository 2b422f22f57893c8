"""``lzero journal`` shows, checks and cuts a journal; it changes nothing, and names what is off."""

import json
import re
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest

from launch.cli import main
from launch.journal.place import find_journal
from launch.journal.starts import Start, starts_of
from launch.run.folder import RunFolder
from learner.coordination.recorded import RecordedOrder
from learner.journal.format import SEGMENT_HEADER_BYTES, SegmentHeader, segment_header
from learner.journal.segments import Place, read_place, segment_files
from learner.journal.survey import survey
from tests.kept_journal import flip, forge, make_journal

COMMANDS = (["show"], ["show", "--records"], ["check"], ["cut", "--steps", "1", "--out", "{}/new"])


def said(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    """What a command puts out; the error where it fails."""
    capsys.readouterr()
    assert main(["journal", *arguments]) == status
    told = capsys.readouterr()
    return told.err if status == 2 else told.out


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> Any:
    return json.loads(said(capsys, *arguments, "--json", status=status))


def places(run: RunFolder) -> list[Place]:
    return [place for segment in survey(run.journal).segments for place in segment.places]


def starts(run: RunFolder) -> dict[int, Start]:
    return {start.step: start for start in starts_of(find_journal(run.path), survey(run.journal))}


def content(run: RunFolder) -> list[bytes]:
    return [path.read_bytes() for path in sorted(run.journal.iterdir())]


def test_what_is_in_it_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_journal(tmp_path)

    told = as_json(capsys, "show", str(run.path))

    assert [(s["first_record"], s["records"], s["checkpoint"]) for s in told["segments"]] == [
        (0, 6, -1), (6, 12, 1), (18, 6, 2),
    ]  # fmt: skip
    assert told["kinds"] == {
        "Granted": 7, "Accepted": 6, "Ended": 1, "Closed": 3, "Taken": 3, "EvaluationBegun": 1,
        "Evaluated": 2, "EvaluationTaken": 1,
    }  # fmt: skip
    assert [(b["step"], b["version"], b["record"]) for b in told["batches"]] == [
        (1, 0, 5), (2, 1, 17), (3, 2, 23),
    ]  # fmt: skip
    assert told["batches"][1]["trajectories"] == ["g000001-0-2", "g000001-1-1"]
    assert told["dropped"] == {"infrastructure:unknown": 1}
    assert told["evaluations"] == [{"number": 0, "version": 1, "record": 6, "is_taken": True}]
    assert told["flaws"] == []


def test_records_are_listed_by_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_journal(tmp_path)

    every = as_json(capsys, "show", str(run.path), "--records")["records"]
    second = as_json(capsys, "show", str(run.path), "--records", "--steps", "2")["records"]
    lines = said(capsys, "show", str(run.path), "--records", "--steps", "2-3").splitlines()

    assert [row["record"] for row in every] == list(range(24))
    assert [row["record"] for row in second] == list(range(6, 18))
    assert second[-1]["fields"]["trajectories"] == ["g000001-0-2", "g000001-1-1"]
    assert [int(line.split()[0]) for line in lines] == list(range(6, 24))
    assert "Accepted trajectory_id=g000001-1-1 task_id=" in lines[7]


def test_a_journal_that_is_as_it_was_written_is_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_journal(tmp_path)
    before = content(run)

    of_run = as_json(capsys, "check", str(run.path))
    of_folder = said(capsys, "check", str(run.journal))

    assert (of_run["is_whole"], of_run["records"], of_run["steps"]) == (True, 24, [1, 3])
    assert of_folder.startswith(f"whole: {run.journal}: 3 segments, 24 records")
    assert content(run) == before


def test_a_torn_end_is_named_and_no_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_journal(tmp_path)
    last = segment_files(run.journal)[-1]
    with last.open("ab") as file:
        file.write(b"torn")
    before = content(run)

    told = as_json(capsys, "check", str(run.path))
    line = said(capsys, "check", str(run.path)).splitlines()[1]

    assert told["is_whole"]
    assert [(flaw["kind"], flaw["path"]) for flaw in told["flaws"]] == [("torn", str(last))]
    assert line.startswith(f"torn: '{last}' offset {last.stat().st_size - 4}: expected a record's")
    assert content(run) == before, "it is not cut"


@pytest.mark.parametrize("number", range(0, 24, 5))
def test_any_byte_that_was_changed_is_found_in_its_record(
    number: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_journal(tmp_path)
    place = places(run)[number]
    flip(place.segment, place.offset + place.num_bytes // 2)

    told = as_json(capsys, "check", str(run.path), status=1)

    (flaw,) = [flaw for flaw in told["flaws"] if flaw["kind"] == "damaged"]
    assert (flaw["path"], flaw["offset"]) == (str(place.segment), place.offset)
    assert "does not match its checksum" in flaw["reason"]


def test_a_damaged_header_a_lost_segment_and_a_strange_record_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_journal(tmp_path)
    for name in ("header", "lost", "strange", "first"):
        shutil.copytree(run.path, tmp_path / name)
    segments = [path.name for path in segment_files(run.journal)]
    flip(tmp_path / "header/journal" / segments[1], 9)
    (tmp_path / "lost/journal" / segments[1]).unlink()
    (tmp_path / "first/journal" / segments[0]).unlink()
    forge(places(RunFolder(tmp_path / "strange"))[5], 10)

    header, lost, strange, first = (
        said(capsys, "check", str(tmp_path / name), status=1)
        for name in ("header", "lost", "strange", "first")
    )

    assert f"damaged: '{tmp_path}/header/journal/{segments[1]}' offset 0: expected the h" in header
    assert "it begins with record 18; records 6 to 17 are not there" in lost
    assert "damaged: " in strange
    assert "a record of kind 6 cannot be read" in strange
    assert "records 0 to 5, which run.keep_journal = true keeps, are not there" in first


def test_a_journal_that_ends_before_what_was_trained_lacks_something(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_journal(tmp_path)
    segment_files(run.journal)[-1].unlink()

    told = said(capsys, "check", str(run.path), status=1)

    assert "the last batch here is that of step 2, but batches.jsonl of the run has step 3" in told


def test_what_a_run_removed_itself_is_not_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_journal(tmp_path, keep=False)
    segment_files(run.journal)[0].unlink()

    told = as_json(capsys, "check", str(run.path))

    assert told["is_whole"]
    assert told["notes"][0].startswith("it begins with record 6: what no kept checkpoint needs")


def test_every_kept_state_says_which_steps_it_can_begin(tmp_path: Path) -> None:
    found = starts(make_journal(tmp_path))

    assert {step: (start.serial, start.last) for step, start in found.items()} == {
        0: (0, 3), 1: (6, 3), 2: (18, 3),
    }  # fmt: skip


def test_a_piece_holds_the_records_from_the_checkpoint_to_the_last_batch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_journal(tmp_path)
    out = tmp_path / "piece"

    told = as_json(capsys, "cut", str(run.path), "--steps", "2", "--out", str(out))

    assert (told["checkpoint"], told["records"]) == (1, 12)
    assert told["also_needed"].startswith("checkpoints/step-000001 of the run, and the model")
    assert as_json(capsys, "check", str(out))["is_whole"]
    piece = RunFolder(out)
    assert [read_place(place) for place in places(piece)] == [
        read_place(place) for place in places(run)[6:18]
    ]
    assert piece.config.read_bytes() == run.config.read_bytes()
    assert [json.loads(line)["step"] for line in piece.batches.read_text().splitlines()] == [2]
    assert starts(piece) == {}, "without the checkpoint"
    shutil.copytree(run.checkpoints, piece.checkpoints)
    assert {step: start.last for step, start in starts(piece).items()} == {1: 2}


def test_a_piece_from_the_beginning_needs_the_initial_weights_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_journal(tmp_path)
    shutil.rmtree(run.checkpoints)
    out = tmp_path / "piece"

    said(capsys, "cut", str(run.path), "--steps", "2", "--out", str(out))

    assert {step: start.last for step, start in starts(RunFolder(out)).items()} == {0: 2}


def test_a_segment_that_says_another_number_does_not_go_on_from_the_one_before(
    tmp_path: Path,
) -> None:
    run = make_journal(tmp_path)
    second = segment_files(run.journal)[1]
    header = segment_header(SegmentHeader(number=1, first_serial=3, checkpoint=1))
    second.write_bytes(header + second.read_bytes()[SEGMENT_HEADER_BYTES:])

    found = survey(run.journal)

    assert "it begins with record 3, and record 6 was expected" in str(found.flaws[0])
    assert len(found.since(0)) == 6


def test_what_comes_before_damage_can_still_be_cut(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_journal(tmp_path)
    place = places(run)[20]
    flip(place.segment, place.offset + 50)
    out = str(tmp_path / "piece")

    told = said(capsys, "cut", str(run.path), "--steps", "3", "--out", out, status=2)

    assert f"--steps 3 of the journal '{run.journal}' cannot be played: damaged: " in told
    assert f"'{place.segment}' offset {place.offset}: a record of" in told
    assert "steps that can be: 1-2 from the initial weights, 2 from checkpoint step-0" in told
    assert as_json(capsys, "cut", str(run.path), "--steps", "1-2", "--out", out)["records"] == 18


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ("2-9", "--steps 2-9 of the journal '.*' cannot be played: the last step that it holds is"
         " 3; steps that can be: 1-3 from the initial weights, 2-3 from checkpoint step-000001"),
        ("0", "must be a step or a range of them from 1 on"),
        ("3-2", "must be a step or a range of them from 1 on"),
        ("x", "must be a step or a range of them from 1 on"),
    ],
)  # fmt: skip
def test_steps_that_are_not_there_are_refused(
    steps: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_journal(tmp_path)

    told = said(capsys, "cut", str(run.path), "--steps", steps, "--out", "new", status=2)

    assert re.search(reason, told)
    assert told.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_what_holds_no_journal_is_refused_in_one_line(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word.format(tmp_path) for word in command]
    (tmp_path / "empty").mkdir()

    nowhere = said(capsys, words[0], str(tmp_path / "nowhere"), *words[1:], status=2)
    empty = said(capsys, words[0], str(tmp_path / "empty"), *words[1:], status=2)

    assert "does not exist; name a run folder" in nowhere
    assert "keeps no journal: expected" in empty
    assert "--set run.keep_journal=true" in empty
    assert {text.count("\n") for text in (nowhere, empty)} == {1}


def test_a_journal_of_another_version_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_journal(tmp_path)
    (first, *_) = segment_files(run.journal)
    data = bytearray(first.read_bytes())
    data[8] = 99
    data[28:32] = struct.pack("<I", zlib.crc32(data[:28]))
    first.write_bytes(data)

    assert "is of another version: it has format 99" in said(
        capsys, "check", str(run.path), status=2
    )


def test_tasks_come_in_the_order_of_the_journal_without_a_task_file(tmp_path: Path) -> None:
    run = make_journal(tmp_path)
    every = places(run)
    order = RecordedOrder(every)
    order.begin_with(1)
    granted = [read_place(place) for place in every if place.kind == 1]

    following = [order.next().task_id for _ in range(2)]

    assert all(following[0].encode() in bytes(record.frames[0]) for record in granted[2:5])
    assert following[1].encode() in bytes(granted[5].frames[0])
    assert order.next().task_id == "not in the journal"
