"""Actors are told whom they may ask, and get no tasks while that is nobody."""

from pathlib import Path

from common.places import Address, ServerPlace
from common.wire.hosting import ServerLoad
from common.wire.records import TaskLease
from common.wire.session import Asked, Heartbeat, HeartbeatAck, Rotation, Welcome
from learner.coordination.membership import Membership
from tests.asked_servers import asked
from tests.coordination import a_peer, an_intake, hello
from tests.waiting import wait_for
from tests.wires import a_place


def test_a_session_hears_every_rotation_before_tasks(tmp_path: Path) -> None:
    membership = Membership([ServerPlace(name="s0", address=Address(bind="/s0"))])
    with (
        a_place(["a0"]) as place,
        an_intake(place, tmp_path, membership=membership),
        a_peer(place) as peer,
    ):
        peer.say(hello())
        assert isinstance(peer.hear(), Welcome)
        assert peer.hears_nothing(), "nobody may be asked: there is nothing to do"

        with membership.roster() as roster:
            life = roster.server("s0").life
            roster.updated("s0", life, 4)
            roster.published(4)
            roster.proved("s0", life, 4)

        first = peer.hear()
        asked = Asked(server="s0", address=Address(bind="/s0"), version=4)
        assert first == Rotation(number=1, asked=(asked,), lost=())
        leases = [peer.hear(), peer.hear()]
        assert all(isinstance(lease, TaskLease) for lease in leases)

        with membership.roster() as roster:
            seen = roster.server("s0")
        membership.fail(seen, "it was killed")
        assert peer.hear() == Rotation(number=2, asked=(), lost=("s0",))

        names = tuple(lease.lease_id for lease in leases if isinstance(lease, TaskLease))
        peer.say(Heartbeat(seen=2, leases=names, rotation=1))
        answers = [peer.hear(), peer.hear()]
        assert HeartbeatAck(sent=2) in answers
        assert Rotation(number=2, asked=(), lost=("s0",)) in answers, "it was lost on the way"
        peer.say(Heartbeat(seen=2, leases=names, rotation=2))
        assert peer.hear() == HeartbeatAck(sent=2)
        assert peer.hears_nothing()


def test_what_a_server_says_of_its_load_bounds_what_is_handed_out(tmp_path: Path) -> None:
    membership = asked([ServerPlace(name="s0", address=Address(bind="/s0"))])
    with (
        a_place(["a0", "a1"]) as place,
        an_intake(place, tmp_path, membership=membership, max_staleness=5) as intake,
        a_peer(place) as first,
        a_peer(place, "a1", b"a1#s") as second,
    ):
        for name, peer in {"a0": first, "a1": second}.items():
            peer.say(hello(name))
            said = [peer.hear() for _ in range(4)]
            assert sum(isinstance(record, TaskLease) for record in said) == 2
        assert intake.credit_share() == 1

        reports, seen = 0, 2
        while intake.credit_share() == 1 and reports < 60:
            reports += 1
            load = ServerLoad(running=2, preemptions=reports, sampled=reports, busy_s=reports)
            with membership.roster() as roster:
                roster.loaded("s0", 0, load)
            first.say(Heartbeat(seen=seen, leases=(), rotation=1))  # it has lost all of them
            while not isinstance(record := first.hear(), HeartbeatAck):
                seen += isinstance(record, TaskLease)

        wait_for(lambda: intake.credit_share() == 3 / 4)
