"""From any waits the way to a root ends, and names the oldest wait at each place."""

import time

from hypothesis import given, settings
from hypothesis import strategies as st

from common.waits.catalogue import CATALOGUE, Part, WaitKind
from common.waits.graph import ChainEnd, Quiet, WaitGraph, why
from common.waits.records import Node, Waiting
from common.waits.sentences import describe_chain

LEARNER = Node(Part.LEARNER)


def nodes(kind: WaitKind) -> st.SearchStrategy[Node]:
    return st.builds(Node, st.just(CATALOGUE[kind].on), st.sampled_from("ab"))


ANYBODY = st.builds(Node, st.sampled_from(Part), st.sampled_from("ab")) | st.just(LEARNER)
WAITS = st.sampled_from(WaitKind).flatmap(
    lambda kind: st.builds(
        Waiting, kind=st.just(kind), who=ANYBODY, on=nodes(kind), seconds=st.floats(0, 1e6)
    )
)
GRAPHS = st.builds(
    lambda waits, silent: WaitGraph(
        waits=waits, silent={node: Quiet(node, 5.0, "has said nothing") for node in silent}
    ),
    st.lists(WAITS, max_size=60),
    st.lists(ANYBODY, max_size=3),
)


@given(GRAPHS, ANYBODY)
@settings(max_examples=50)
def test_the_way_ends_and_each_step_is_the_oldest_wait_of_its_place(
    graph: WaitGraph, start: Node
) -> None:
    chain = why(graph, start)

    place = start
    for wait in chain.waits:
        own = [one for one in graph.waits if one.who == place]
        first_choice = [one for one in own if not CATALOGUE[one.kind].is_last_resort]
        assert wait.who == place
        assert place not in graph.silent
        assert wait.seconds == max(one.seconds for one in first_choice or own)
        place = wait.on
    assert place == chain.root
    visited = [start, *(wait.on for wait in chain.waits)]
    is_circle = chain.ending is ChainEnd.CIRCLE
    assert len(set(visited)) == len(visited) - is_circle
    assert (chain.ending is ChainEnd.SILENT) == (place in graph.silent and not is_circle)
    if chain.ending is ChainEnd.AT_WORK:
        assert not [one for one in graph.waits if one.who == place]
    assert describe_chain(chain, graph).startswith(str(start))


@given(GRAPHS, ANYBODY, st.randoms())
@settings(max_examples=30)
def test_the_order_in_which_waits_are_known_changes_nothing(
    graph: WaitGraph, start: Node, random: "object"
) -> None:
    shuffled = list(graph.waits)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    other = WaitGraph(waits=shuffled, silent=graph.silent)

    mine, theirs = why(graph, start), why(other, start)
    assert [w.seconds for w in mine.waits] == [w.seconds for w in theirs.waits]
    assert mine.root == theirs.root


def test_a_chain_reads_from_the_learner_to_the_server_that_does_not_answer() -> None:
    batch, group = Node(Part.BATCH, "57"), Node(Part.GROUP, "g000123")
    lease, server = Node(Part.LEASE, "g000123-5-1"), Node(Part.SERVER, "s0")
    actor, now = Node(Part.ACTOR, "a2"), 1_700_000_000.0
    graph = WaitGraph(
        waits=[
            Waiting(kind=WaitKind.BATCH, who=LEARNER, on=batch, seconds=41.0),
            Waiting(
                kind=WaitKind.LACKED_GROUP, who=batch, on=group, seconds=44.0,
                detail="3 of 4 groups ready",
            ),
            Waiting(
                kind=WaitKind.LACKED_LEASE, who=group, on=lease, seconds=44.0,
                detail="at actor a2",
            ),
            Waiting(kind=WaitKind.HELD_LEASE, who=lease, on=actor, seconds=44.0),
            Waiting(kind=WaitKind.GENERATION, who=lease, on=server, seconds=39.0),
            Waiting(
                kind=WaitKind.SAMPLING, who=server, on=Node(Part.VLLM, "s0"), seconds=50.0
            ),
        ],
        silent={server: Quiet(server, 39.0, "has not answered")},
        now=now,
    )  # fmt: skip

    clock = time.strftime("%H:%M:%S", time.localtime(now - 39))
    assert describe_chain(why(graph, LEARNER), graph) == (
        "learner waits 41 s for batch 57, which lacks group g000123 (3 of 4 groups ready): lease "
        "g000123-5-1 at actor a2, which waits 39 s for policy server s0, which has not answered "
        f"since {clock} (39 s)"
    )


def test_a_lease_whose_actor_names_no_wait_ends_at_the_actor() -> None:
    lease, actor = Node(Part.LEASE, "g1-0-1"), Node(Part.ACTOR, "a0")
    held = Waiting(kind=WaitKind.HELD_LEASE, who=lease, on=actor, seconds=100.0)
    cell = Waiting(kind=WaitKind.CELL, who=lease, on=Node(Part.KERNEL, "a0/k"), seconds=1.0)

    assert why(WaitGraph(waits=[held]), lease).root == actor
    assert why(WaitGraph(waits=[held, cell]), lease).root == Node(Part.KERNEL, "a0/k")


def test_a_circle_is_said() -> None:
    version, server = Node(Part.PUBLISH, "3"), Node(Part.SERVER, "s0")
    graph = WaitGraph(
        waits=[
            Waiting(kind=WaitKind.EARLIER_PUBLISH, who=LEARNER, on=version, seconds=5.0),
            Waiting(kind=WaitKind.ORDER, who=version, on=server, seconds=5.0, detail="Swap"),
            Waiting(kind=WaitKind.EARLIER_PUBLISH, who=server, on=version, seconds=5.0),
        ]
    )

    chain = why(graph, LEARNER)
    assert (chain.ending, chain.root) == (ChainEnd.CIRCLE, version)
    assert describe_chain(chain, graph).endswith(
        "a circle, in which everything waits for publish of version 3"
    )
