"""Messages that nobody of ours would send: made of right ones, without end, the same for a seed."""

import random
from collections.abc import Iterator
from typing import Any

import msgpack

from common.places import Address
from common.wire.codec import Buffer, encode
from common.wire.records import Purpose, Task, TaskLease, TensorSpec, WeightManifest
from common.wire.session import (
    Ack,
    Asked,
    Drain,
    Heartbeat,
    HeartbeatAck,
    HelloWanted,
    Leave,
    Refused,
    Rejected,
    Rotation,
    Welcome,
)
from common.wire.weights import ReportKind, StagingReport, pack_report
from tests.coordination import hello
from tests.makers import make_totals, make_trajectory

LEASE = TaskLease(
    lease_id="g0-r0-1",
    group_id="g0",
    sample_index=0,
    purpose=Purpose.TRAIN,
    temperature=1.0,
    task=Task(task_id="t", question="?", answers=("a",)),
)
RECORDS = (
    make_trajectory("g0-r0-1", group_id="g0", task_id="t"),
    hello(),
    Heartbeat(seen=1, leases=("g0-r0-1",)),
    Leave(reason="done"),
    Leave(reason="done", totals=make_totals()),
    Ack(trajectory_id="g0-r0-1"),
    HelloWanted(),
    Welcome(schema_version=4, leases=("x",)),
    Refused(reason="no"),
    Rejected(reason="no"),
    HeartbeatAck(sent=3),
    Drain(reason="end", finish_s=0.0),
    Rotation(
        number=2, asked=(Asked(server="s0", address=Address(bind="/s0"), version=4),), lost=("s1",)
    ),
    LEASE,
    WeightManifest(
        version=1, tensors=(TensorSpec(name="w", dtype="int8", shape=(4,)),), checksum="0" * 32
    ),
)
REPORT = pack_report(StagingReport(server="s0", rank=0, kind=ReportKind.HELLO, version=-1))

_ODD: tuple[Any, ...] = (
    None, True, -1, 0, 2**31, 2**63, -(2**63), 1e308, float("nan"), float("inf"), "", "\x00",
    "x" * 5000, "\u202e", b"", b"\xff", [], {}, [[]], {"": {}}, [1] * 300,
    msgpack.ExtType(1, b"x"), msgpack.Timestamp(0),
)  # fmt: skip


def messages(seed: int) -> Iterator[list[bytes]]:
    """Damaged messages; each has at least one frame."""
    chance = random.Random(seed)
    whole = [[bytes(frame) for frame in encode(record)] for record in RECORDS] + [[REPORT]]
    while True:
        frames = list(chance.choice(whole))
        for _ in range(chance.randint(1, 3)):
            _DAMAGES[chance.randrange(len(_DAMAGES))](chance, frames)
        yield frames


def _flip(chance: random.Random, frames: list[bytes]) -> None:
    index = chance.randrange(len(frames))
    damaged = bytearray(frames[index] or b"\0")
    for _ in range(chance.randint(1, 4)):
        damaged[chance.randrange(len(damaged))] = chance.randrange(256)
    frames[index] = bytes(damaged)


def _cut(chance: random.Random, frames: list[bytes]) -> None:
    index = chance.randrange(len(frames))
    frames[index] = frames[index][: chance.randint(0, len(frames[index]))]


def _insert(chance: random.Random, frames: list[bytes]) -> None:
    index = chance.randrange(len(frames))
    place = chance.randint(0, len(frames[index]))
    junk = chance.randbytes(chance.randint(1, 40))
    frames[index] = frames[index][:place] + junk + frames[index][place:]


def _shuffle(chance: random.Random, frames: list[bytes]) -> None:
    if chance.random() < 0.5:
        chance.shuffle(frames)
    else:
        frames.insert(chance.randint(0, len(frames)), chance.choice((b"", b"\0" * 8, frames[0])))


def _replace(chance: random.Random, frames: list[bytes]) -> None:
    """Another value somewhere inside of the header."""
    try:
        header = msgpack.unpackb(frames[0], strict_map_key=False)
    except Exception:  # damaged before
        return
    places = list(_places(header))
    if not places:
        return
    container, key = chance.choice(places)
    container[key] = chance.choice(_ODD)
    try:
        frames[0] = msgpack.packb(header)
    except (ValueError, TypeError, OverflowError):
        return


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    items: Any = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list) else items
    for key, inner in list(items):
        yield value, key
        yield from _places(inner)


_DAMAGES = (_flip, _cut, _insert, _shuffle, _replace, _replace)


def as_views(frames: list[bytes]) -> list[Buffer]:
    return [memoryview(frame) for frame in frames]
