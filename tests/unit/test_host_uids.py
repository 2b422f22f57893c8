"""Which user ids of the host kernels may have, and that no two have the same."""

import os
import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from actors.kernels.interface import KernelDiedError
from actors.kernels.limits.host_uids import HostUids, lease_uid
from actors.kernels.limits.id_ranges import (
    IdRange,
    NoHostUidsError,
    check_range,
    find_source,
    parse_subordinate,
    subordinate_range,
)

EVERYTHING = [IdRange(0, 4294967295)]
SMALL = IdRange(1_899_000_000, 3)
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives user ids away")


def check(wanted, *, mapped=EVERYTHING, taken=()):
    check_range(wanted, mapped=mapped, taken=taken)


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (IdRange(0, 10), "no range of at least 3 user ids between 1 and"),
        (IdRange(-5, 10), "no range"),
        (IdRange(1000, 2), "no range"),
        (IdRange(2**31 - 10, 11), "no range"),
        (IdRange(60_000, 10_000), "do not exist in this container, which has 0-65535"),
        (IdRange(99_990, 11), "meet 100000-165535 of alice in /etc/subuid"),
    ],
)
def test_a_range_that_kernels_must_not_have_is_refused_with_the_reason(wanted, reason):
    with pytest.raises(NoHostUidsError, match=reason):
        check(
            wanted,
            mapped=[IdRange(0, 65_536)] if wanted.first == 60_000 else EVERYTHING,
            taken=[("alice in /etc/subuid", IdRange(100_000, 65_536))],
        )


def test_a_range_between_those_of_others_is_taken():
    check(
        IdRange(2000, 100),
        mapped=[IdRange(0, 1000), IdRange(1000, 1100)],
        taken=[("user a", IdRange(1999, 1)), ("b in /etc/subuid", IdRange(2100, 50))],
    )


@given(*[st.integers(0, 60)] * 2, *[st.integers(1, 60)] * 2)
def test_ranges_meet_where_they_have_an_id_in_common(first, other_first, count, other_count):
    one, other = IdRange(first, count), IdRange(other_first, other_count)
    ids = set(range(first, one.end)) & set(range(other_first, other.end))

    assert one.meets(other) == other.meets(one) == bool(ids)


@given(st.text(alphabet="ab:0123456789\n- #", max_size=80))
@example("alice:²:5")
def test_no_text_of_subordinate_ids_raises(text):
    for name, span in parse_subordinate(text):
        assert ":" not in name
        assert span.first >= 0


def test_the_largest_subordinate_range_of_a_user_is_found_by_name_or_number():
    text = "alice:100000:10\n# bob:5:5\nbob:200000:65536\n1000:300000:20\nalice:x:9\n"

    assert subordinate_range(text, ("1000", "alice")) == IdRange(300_000, 20)
    assert subordinate_range(text, ("7", "carol")) is None


@root_only
def test_the_range_as_configured_holds_nobody_elses_ids():
    source = find_source(IdRange(1_900_000_000, 4096))

    assert source.ids == IdRange(1_900_000_000, 4094)
    assert not source.subordinate
    assert (source.zygote, source.inner_root) == (source.ids.end, source.ids.end + 1)


def test_leases_are_different_until_none_is_left(tmp_path):
    leases = [lease_uid(SMALL, tmp_path / "lzero") for _ in range(SMALL.count)]

    assert {lease.uid for lease in leases} == set(range(SMALL.first, SMALL.end))
    assert lease_uid(SMALL, tmp_path / "lzero") is None

    leases[1].release()
    leases[1].release()
    again = lease_uid(SMALL, tmp_path / "lzero")
    assert again.uid == leases[1].uid
    for lease in [*leases, again]:
        lease.release()


HOLDING = """
import sys
from pathlib import Path
from actors.kernels.limits.host_uids import lease_uid
from actors.kernels.limits.id_ranges import IdRange
lease = lease_uid(IdRange(int(sys.argv[1]), 1), Path(sys.argv[2]))
print(lease.uid, flush=True)
sys.stdin.read()
"""


def test_a_lease_ends_with_its_holder_also_when_that_is_killed(tmp_path):
    command = [sys.executable, "-c", HOLDING, str(SMALL.first), str(tmp_path / "lzero")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert int(holder.stdout.readline()) == SMALL.first
        assert lease_uid(IdRange(SMALL.first, 1), tmp_path / "lzero") is None
        holder.kill()
    lease = lease_uid(IdRange(SMALL.first, 1), tmp_path / "lzero")

    assert lease is not None
    lease.release()


@root_only
def test_an_id_that_a_process_still_has_is_passed_over(tmp_path):
    hidden = ["prctl(4, 0, 0, 0, 0)", "print(flush=True)", "input()"]
    code = "import ctypes; prctl = ctypes.CDLL(None).prctl; " + "; ".join(hidden)
    who = ["setpriv", f"--reuid={SMALL.first}", f"--regid={SMALL.first}", "--clear-groups"]
    with subprocess.Popen(
        [*who, "/usr/bin/python3", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        assert lease_uid(IdRange(SMALL.first, 1), tmp_path / "lzero") is None
        process.kill()
    lease = lease_uid(IdRange(SMALL.first, 1), tmp_path / "lzero")

    assert lease is not None
    lease.release()


def test_a_register_that_others_can_write_is_refused(tmp_path):
    (tmp_path / "lzero").mkdir()
    (tmp_path / "lzero").chmod(0o777)

    with pytest.raises(PermissionError, match="only we can write to"):
        lease_uid(SMALL, tmp_path / "lzero")


@root_only
def test_when_all_are_taken_a_launch_fails_and_names_the_setting():
    uids = HostUids(SMALL.first, 3)
    lease = uids.lease()

    with pytest.raises(KernelDiedError, match=r"all 1 user ids .* kernel\.uids has 3, of which 2"):
        uids.lease()
    lease.release()


@root_only
def test_a_range_that_is_somebody_elses_leaves_one_shared_id_and_a_warning(caplog):
    uids = HostUids(os.getgid() + 1, 50)

    assert uids.lease() is None
    assert "kernels share one user id of the host" in caplog.text
