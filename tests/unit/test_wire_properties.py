"""Whatever stands in the files of a run or comes in parts is understood, or refused in one way."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import ConfigError, InputError, ProtocolError
from common.places import Address, Member, ProcessPlan, RunPlan, ServerPlace
from common.plan_file import PLAN, load_plan, save_plan
from common.wire.keys import CHARACTERS, KeyPair, read_key_pair, write_key_pair
from common.wire.parts import PART_BYTES, cut, join

one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)

Z85 = "".join(map(chr, range(33, 127)))
keys = st.text(Z85, min_size=CHARACTERS, max_size=CHARACTERS)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
addresses = st.builds(Address, bind=texts, host=texts, port=st.integers(0, 65535), key=texts)
plans = st.builds(
    RunPlan,
    private=texts,
    coordinator=addresses,
    weights=addresses,
    servers=st.lists(st.builds(ServerPlace, name=texts, address=addresses), max_size=3).map(tuple),
    members=st.lists(
        st.builds(
            Member,
            name=texts,
            role=st.sampled_from(["policy-server", "learner", "actor"]),
            key=keys,
        ),
        max_size=3,
    ).map(tuple),
    processes=st.lists(
        st.builds(
            ProcessPlan,
            name=texts,
            role=st.sampled_from(["policy-server", "learner", "actor"]),
            command=st.lists(texts, max_size=3).map(tuple),
            environment=st.lists(st.tuples(texts, texts), max_size=3).map(tuple),
        ),
        max_size=2,
    ).map(tuple),
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
fields = st.sampled_from(["private", "coordinator", "weights", "servers", "members", "processes"])


@one_folder
@given(keys, keys)
def test_keys_come_back_as_they_were_written(tmp_path: Path, public: str, secret: str) -> None:
    path = tmp_path / "a0.key"
    path.unlink(missing_ok=True)
    pair = KeyPair(public=public, secret=secret)

    write_key_pair(path, pair)

    assert read_key_pair(path) == pair
    assert secret == public or secret not in repr(pair)


@one_folder
@given(st.binary(max_size=100) | st.text(Z85 + " \n", max_size=100).map(str.encode))
def test_a_file_holds_two_keys_or_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a0.key"
    path.write_bytes(content)
    try:
        pair = read_key_pair(path)
    except InputError:
        return
    assert content.split() == [pair.public.encode(), pair.secret.encode()]


@one_folder
@given(plans)
def test_a_plan_comes_back_as_it_was_written(tmp_path: Path, plan: RunPlan) -> None:
    here = replace(plan, private=str(tmp_path))

    assert load_plan(save_plan(here)) == here


@one_folder
@given(
    st.binary(max_size=60)
    | st.dictionaries(fields | texts, values, max_size=6).map(lambda d: json.dumps(d).encode())
    | values.map(lambda value: json.dumps(value).encode())
    | st.integers(1, 100_000).map(lambda depth: b'{"private":' + b"[" * depth)
)
def test_a_file_that_is_no_plan_is_refused_by_one_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / PLAN
    path.write_bytes(content)

    with pytest.raises(ConfigError, match=r"plan\.json"):
        load_plan(path)


sizes = st.lists(
    st.sampled_from([0, 1, 7, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES, 700_000]),
    min_size=1,
    max_size=4,
)


@settings(deadline=None, max_examples=50)
@given(sizes)
def test_frames_come_out_of_their_parts_as_they_went_in(sizes: list[int]) -> None:
    frames = [b"header", *(bytes([index]) * size for index, size in enumerate(sizes, start=1))]

    parts = [memoryview(part) for part in cut(frames)]

    assert max(part.nbytes for part in parts) <= PART_BYTES
    assert [bytes(frame) for frame in join(parts, limit=1 << 30)] == frames


@given(st.lists(st.binary(max_size=12), max_size=5), st.integers(0, 20))
def test_parts_that_do_not_add_up_are_refused_by_one_error(parts: list[bytes], limit: int) -> None:
    try:
        frames = join([memoryview(part) for part in parts], limit=limit)
    except ProtocolError:
        return
    assert sum(frame.nbytes for frame in frames) <= sum(map(len, parts))
    assert not parts or parts[0] or sum(frame.nbytes for frame in frames) <= limit
