"""Waits that need real processes, and a chain through all of them, over ZeroMQ."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from actors.kernels.launchers import make_launcher
from actors.link import CoordinatorLink
from actors.mending import Mending
from actors.policy import PolicyClient
from actors.runner import run_leases
from actors.wiring import started_judge
from common.config import Config, Kernel, Rewards
from common.places import Address, ServerPlace
from common.waits.catalogue import Part, WaitKind
from common.waits.graph import why
from common.waits.records import Node
from common.waits.register import subject
from common.waits.sentences import describe_chain
from common.wire.hosting import Generate, Generated
from common.wire.records import Outcome, Step, Task, TaskLease, Trajectory
from common.wire.sockets import Wire
from learner.status import StatusWriter
from tests.asked_servers import asked
from tests.coordination import an_intake
from tests.makers import make_totals
from tests.played_policy import ASKER, PlayedPolicy
from tests.unit.test_waits_of_learner import taking
from tests.wait_sentences import said_soon
from tests.wires import a_place

STEP = Step(action="a", code="b", observation="", status="ok")
SLOW = """import time

def term(episode):
    time.sleep(60)
    return 0.0
"""


def test_an_episode_waits_for_the_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow_term.py").write_text(SLOW)
    monkeypatch.syspath_prepend(tmp_path)
    rewards = Rewards(preset="none", terms={"slow_term:term": 1.0})
    task = Task(task_id="t", question="?", answers=("a",))

    async def main() -> str:
        async with started_judge(Config(rewards=rewards)) as judge:
            with subject(Part.LEASE, "g1-0-1"):
                work = judge.score(task, "a", (STEP,), Outcome.SUBMITTED)
                scoring = asyncio.create_task(work)
            try:
                return await said_soon(WaitKind.JUDGE)
            finally:
                scoring.cancel()
                await asyncio.gather(scoring, return_exceptions=True)

    assert asyncio.run(main()) == "lease g1-0-1 waits for the judge of"


def test_a_kernel_that_starts_waits_for_the_process_that_it_is_forked_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("common.restarts.FIRST_S", 60)

    async def main() -> str:
        launcher = make_launcher(Kernel(), Mending())
        await launcher.start()
        launcher._chosen._zygote._process.kill()  # type: ignore[attr-defined]
        launching = asyncio.create_task(launcher.launch())
        try:
            return await said_soon(WaitKind.MENDING)
        finally:
            await launcher.close()
            await asyncio.gather(launching, return_exceptions=True)

    assert asyncio.run(main()) == (
        "kernel waits for the parent of kernels of, which is started again: was killed by SIGKILL"
    )


async def never_answer(_: Generate) -> Generated:
    await asyncio.Event().wait()
    raise AssertionError


class Asking:
    """In place of an episode runner: each lease asks the policy once."""

    def __init__(self, policy: PolicyClient) -> None:
        self._policy = policy

    async def run(self, lease: TaskLease) -> Trajectory:
        await self._policy.generate([1], max_tokens=1, temperature=1.0)
        raise AssertionError


def test_the_learner_names_the_server_that_an_actor_waits_for_and_what_that_waits_for(
    tmp_path: Path,
) -> None:
    """Real coordinator, link, client and host; the policy server's vLLM never answers."""
    server = PlayedPolicy(Address(bind=str(tmp_path / "s0")), never_answer)
    membership = asked([ServerPlace(name="s0", address=server.address)])

    async def scene(intake: Any, link: CoordinatorLink, wire: Wire) -> str:
        async with server.served(), PolicyClient(
            ["s0"], lambda _: server.line(wire), timeout_s=600, attempts=1
        ) as policy:  # fmt: skip
            line = server.line(wire)
            acting = asyncio.create_task(run_leases(link, Asking(policy), make_totals))  # type: ignore[arg-type]
            writer = StatusWriter(
                tmp_path / "status.json", intake, membership, steps=1, heartbeat_s=60.0
            )
            try:
                async with asyncio.timeout(60):
                    while True:
                        report = (await line.state()).report
                        membership.reported("s0", report)
                        status = writer.look()
                        graph = status.graph(now=status.written_at)
                        chain = why(graph, Node(Part.LEARNER))
                        if chain.root == Node(Part.VLLM, "s0"):
                            return describe_chain(chain, graph)
                        await asyncio.sleep(0.05)
            finally:
                acting.cancel()
                await asyncio.gather(acting, return_exceptions=True)
                link.close()
                await line.close()

    with (
        a_place({"a0": ASKER}) as place,
        an_intake(place, tmp_path, membership=membership) as intake,
        Wire(ASKER) as wire,
        taking(intake),
    ):

        async def main() -> str:
            link = CoordinatorLink(
                wire, place.door.address, actor_id="a0", credit=2, kernel_level="",
                heartbeat_s=0.05, resend_s=60.0, patience_s=60.0,
            )  # fmt: skip
            return await scene(intake, link, wire)

        sentence = asyncio.run(main())
    assert "learner waits" in sentence
    assert " for batch 1, which lacks group g000000 (0 of 1 groups ready): lease g00" in sentence
    assert " at actor a0, which waits " in sentence
    assert " for policy server s0, which waits " in sentence
    assert sentence.endswith(" for vLLM of s0 to sample an answer")
