"""Each wait of an actor and of a policy server's host is provoked, and says what it is."""

import asyncio
import os
import re
import subprocess
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from actors.agent.loop import AgentLoop, _attach
from actors.agent.prompt import load_template
from actors.grader import started_grader
from actors.inference.host.serving import HOST_LIMITS, Host
from actors.kernels.frames import Call
from actors.kernels.pool import KernelPool
from actors.kernels.tool_calls import ToolCalls
from actors.policy import PolicyClient
from common.config import Agent, Config, Rewards, Service
from common.errors import ProtocolError
from common.places import Address
from common.waits.catalogue import CATALOGUE, Part, WaitKind
from common.waits.records import MOST_WAITS, Node, Waiting, WaitReport
from common.waits.register import WaitRegister, chosen, counted, subject
from common.wire.codec import decode, encode
from common.wire.hosting import Generate, Generated
from common.wire.records import Task
from common.wire.session import Heartbeat, Welcome
from common.wire.sockets import Wire, new_key_pair
from tests.chat_server import ChatServer
from tests.makers import make_trajectory
from tests.played_policy import ASKER, PlayedPolicy
from tests.scripted_agent import FakeKernel, ScriptedPolicy, conversations
from tests.unit.test_kernel_pool import FakeLauncher
from tests.unit.test_link import Coordinator, lease, play
from tests.wait_sentences import said_soon, sentence

ROOT = Path(__file__).parents[2]


# ---- the catalogue and the register --------------------------------------------------------------


def sources(*patterns: str) -> str:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns]
    files = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return "\n".join((ROOT / file).read_text(encoding="utf-8") for file in files.split())


def test_every_wait_of_the_catalogue_is_in_the_code_and_is_provoked_in_a_test() -> None:
    catalogue = (ROOT / "common/waits/catalogue.py").read_text(encoding="utf-8")
    code = sources("actors/*.py", "learner/*.py", "common/*.py").replace(catalogue, "")
    tests = sources("tests/*test_waits*.py", "tests/*test_collective_waits.py")

    for kind in WaitKind:
        name = rf"WaitKind\.{kind.name}\b"
        assert re.search(name, code), f"{kind} is nowhere in the code"
        assert re.search(name, tests), f"{kind} is in no test"
    assert CATALOGUE.keys() == {*WaitKind}


def test_a_wait_is_known_while_it_lasts_and_has_the_subject_of_where_it_is() -> None:
    register = WaitRegister()

    async def one(name: str, over: asyncio.Event) -> None:
        with subject(Part.LEASE, name), register.waiting(WaitKind.GENERATION, "s0"):
            await over.wait()

    async def main() -> list[list[Node | None]]:
        over, seen = asyncio.Event(), []
        tasks = [asyncio.create_task(one(name, over)) for name in "ab"]
        while len(register.waits()) < 2:
            await asyncio.sleep(0)
        seen.append([wait.who for wait in register.waits()])
        tasks[0].cancel()
        await asyncio.gather(tasks[0], return_exceptions=True)
        seen.append([wait.who for wait in register.waits()])
        over.set()
        await tasks[1]
        return [*seen, [wait.who for wait in register.waits()]]

    both, second, nobody = asyncio.run(main())
    assert both == [Node(Part.LEASE, "a"), Node(Part.LEASE, "b")]
    assert second == [Node(Part.LEASE, "b")]
    assert nobody == []


def test_threads_that_begin_and_end_waits_disturb_nobody_who_looks() -> None:
    register, over = WaitRegister(), threading.Event()

    def work() -> None:
        while not over.is_set():
            with register.waiting(WaitKind.JOURNAL, detail="x"):
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2000):
            assert len(register.waits()) <= 4
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert register.waits() == []


def test_a_report_is_bounded_and_names_the_waits_of_the_oldest_work_first() -> None:
    waits = [
        Waiting(
            kind=WaitKind.GENERATION, who=Node(Part.LEASE, str(number)),
            on=Node(Part.SERVER, "s0"), seconds=100.0 - number,
        )
        for number in range(40)
    ]  # fmt: skip

    named = [wait.who.name for wait in chosen(waits, first=("39", "38")) if wait.who]
    assert named == ["39", "38", *map(str, range(MOST_WAITS - 2))]
    assert counted(waits) == {"generation": 40}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("seconds",), -1.0), (("seconds",), float("nan")), (("kind",), "nap"),
        (("on", "part"), "disk"), (("on", "name"), "x" * 300), (("detail",), "x" * 300),
    ],
)  # fmt: skip
def test_a_wait_that_nobody_of_ours_would_say_is_refused(
    path: tuple[str, ...], value: object
) -> None:
    import msgpack

    wait = Waiting(kind=WaitKind.GENERATION, on=Node(Part.SERVER, "s0"), seconds=1.0)
    beat = Heartbeat(seen=0, leases=(), report=WaitReport(waits=(wait,)))
    assert decode(encode(beat)) == beat

    kind, body = msgpack.unpackb(bytes(encode(beat)[0]))
    place = body["report"]["waits"][0]
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    with pytest.raises(ProtocolError):
        decode([msgpack.packb([kind, body])])


@pytest.mark.parametrize(
    "report",
    [
        {"waits": 9}, {"counts": {"nap": 1}}, {"queues": {"q": -1}},
        {"queues": {str(n): 0 for n in range(17)}}, {"lag_s": float("inf")},
    ],
)  # fmt: skip
def test_a_report_that_is_too_long_or_no_number_is_refused(report: dict[str, Any]) -> None:
    wait = Waiting(kind=WaitKind.GENERATION, on=Node(Part.SERVER, "s0"), seconds=1.0)
    given = {**report, "waits": (wait,) * report["waits"]} if "waits" in report else report
    with pytest.raises(ValueError, match=r"at most 8 waits|catalogue|queues|are numbers"):
        WaitReport(**given)


# ---- actors ------------------------------------------------------------------------------------


def in_a_lease(work: Callable[[], Awaitable[object]], kind: WaitKind) -> str:
    """What a lease says that does such work, which has no end."""

    async def main() -> str:
        with subject(Part.LEASE, "g1-0-1"):
            task = asyncio.ensure_future(work())
        try:
            return await said_soon(kind)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    return asyncio.run(main())


async def never_answer(_: Generate) -> Generated:
    await asyncio.Event().wait()
    raise AssertionError


async def break_down(_: Generate) -> Generated:
    raise RuntimeError("out of luck")


def asked(tmp_path: Path, handler: Callable[[Generate], Awaitable[Generated]]) -> PlayedPolicy:
    return PlayedPolicy(Address(bind=str(tmp_path / "s0")), handler)


def test_a_request_waits_for_its_policy_server_and_that_for_vllm(tmp_path: Path) -> None:
    server = asked(tmp_path, never_answer)

    async def main() -> tuple[str, str]:
        with Wire(ASKER) as wire:
            async with server.served(), PolicyClient(
                ["s0"], lambda _: server.line(wire), timeout_s=60, attempts=1
            ) as client:  # fmt: skip
                with subject(Part.LEASE, "g1-0-1"):
                    work = client.generate([1], max_tokens=1, temperature=1.0)
                    task = asyncio.create_task(work)
                try:
                    return (
                        await said_soon(WaitKind.GENERATION),
                        await said_soon(WaitKind.SAMPLING, "policy server s0"),
                    )
                finally:
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)

    lease_says, server_says = asyncio.run(main())
    assert lease_says == "lease g1-0-1 waits for policy server s0"
    assert server_says == "policy server s0 waits for vLLM of s0 to sample an answer"


def test_a_request_that_failed_waits_to_be_asked_again(tmp_path: Path) -> None:
    server = asked(tmp_path, break_down)

    async def work() -> None:
        with Wire(ASKER) as wire:
            async with server.served(), PolicyClient(
                ["s0"], lambda _: server.line(wire), timeout_s=60, attempts=9, backoff_s=60,
                max_backoff_s=60,
            ) as client:  # fmt: skip
                await client.generate([1], max_tokens=1, temperature=1.0)

    assert in_a_lease(work, WaitKind.ASK_AGAIN) == (
        "lease g1-0-1 waits for policy server s0 to be asked again: RuntimeError: out of luck"
    )


def test_a_request_waits_for_a_rotation_that_names_somebody() -> None:
    async def work() -> None:
        client = PolicyClient(
            [], lambda _: pytest.fail("nobody may be asked"), timeout_s=60, attempts=1
        )
        await client.generate([1], max_tokens=1, temperature=1.0)

    assert in_a_lease(work, WaitKind.ROTATION) == (
        "lease g1-0-1 waits for one of the policy servers that may be asked"
    )


def test_an_episode_waits_for_a_kernel_and_the_pool_for_its_start() -> None:
    async def work() -> None:
        pool = KernelPool(FakeLauncher(), idle=0)
        await pool.start()
        async with pool.slot():
            pass

    assert in_a_lease(work, WaitKind.KERNEL) == "lease g1-0-1 waits for the kernel pool of"
    assert in_a_lease(work, WaitKind.LAUNCH) == "kernel pool of waits for a kernel to start"


class OneKernel:
    """In place of a pool."""

    def slot(self) -> "OneKernel":
        return self

    async def __aenter__(self) -> FakeKernel:
        return FakeKernel("", None, hangs=True)

    async def __aexit__(self, *_: object) -> None:
        pass


def test_an_episode_waits_for_the_end_of_a_cell() -> None:
    agent = Agent(tools=("submit_final_answer",))
    loop = AgentLoop(
        agent=agent, kernels=OneKernel(), tools={},  # type: ignore[arg-type]
        prompt=load_template(agent.system_prompt), cell_timeout_s=60,
    )  # fmt: skip
    policy = ScriptedPolicy("<think>a</think>\n<code>\n1\n</code>")
    conversation = conversations(policy, limit=100_000)(1.0)

    async def work() -> None:
        await loop.run(Task(task_id="t", question="?", answers=("a",)), conversation)

    assert in_a_lease(work, WaitKind.CELL) == "lease g1-0-1 waits for kernel k to end a cell"


def test_a_kernel_waits_for_a_tool() -> None:
    async def hang(*_: Any) -> Any:
        await asyncio.Event().wait()

    async def work() -> None:
        calls = ToolCalls(lambda frame: None, kernel_id="k7")
        calls.bind(["search"], hang)
        calls.begin(Call(number=1, name="search", arguments=("x",), keywords={}))
        try:
            await asyncio.Event().wait()
        finally:
            calls.cancel()

    assert in_a_lease(work, WaitKind.TOOL) == "kernel k7 waits for the tool search"


def test_an_episode_waits_for_the_disk_that_has_the_files_of_its_task(tmp_path: Path) -> None:
    file = tmp_path / "attached"
    os.mkfifo(file)

    class Kernel(FakeKernel):
        async def put_file(self, name: str, data: bytes) -> None:
            assert data == b"at last"

    async def main() -> str:
        with subject(Part.LEASE, "g1-0-1"):
            task = asyncio.create_task(_attach(Kernel("", None, False), file))  # type: ignore[arg-type]
        try:
            return await said_soon(WaitKind.FILES)
        finally:
            await asyncio.to_thread(file.write_bytes, b"at last")
            await task

    assert asyncio.run(main()) == (
        "lease g1-0-1 waits for the disk of its actor to read the task's files"
    )


def test_an_answer_waits_for_the_model_that_grades_it() -> None:
    held = threading.Event()

    def never(_: object) -> str:
        held.wait(60)
        return "A"

    async def ask(url: str) -> None:
        services = {"grader": Service(base_url=url, model="scripted")}
        config = Config(rewards=Rewards(judge="grader"), services=services)
        async with started_grader(config) as grade:
            assert grade is not None
            await grade("is it right?")

    with ChatServer(never) as server:
        try:
            sentence = in_a_lease(lambda: ask(server.url), WaitKind.GRADING)
        finally:
            held.set()
    assert sentence == "lease g1-0-1 waits for the grading model of"


# ---- what an actor says in its heartbeats --------------------------------------------------------


def test_a_heartbeat_says_what_the_actor_waits_for_from_the_coordinator() -> None:
    async def scene(coordinator: Coordinator) -> None:
        def says(kind: WaitKind, who: Node | None = None) -> Callable[[Heartbeat], bool]:
            return lambda beat: (kind, who) in [(w.kind, w.who) for w in beat.report.waits]

        beat = await coordinator.hear(Heartbeat, where=says(WaitKind.WELCOME))
        assert sentence(beat.report.waits[0], "actor a0") == (
            "actor a0 waits for the coordinator to welcome it"
        )
        await coordinator.say(Welcome(schema_version=0))
        beat = await coordinator.hear(Heartbeat, where=says(WaitKind.TASK))
        assert sentence(beat.report.waits[0], "actor a0") == (
            "actor a0 waits for the coordinator to hand out a task"
        )
        assert beat.report.queues == {"leases": 0, "unacknowledged": 0}
        await coordinator.say(lease("a"))
        assert await coordinator.link.next_lease() is not None
        await coordinator.link.deliver(make_trajectory("a"))
        mine = Node(Part.LEASE, "a")
        beat = await coordinator.hear(Heartbeat, where=says(WaitKind.ACK, mine))
        (wait,) = [wait for wait in beat.report.waits if wait.kind is WaitKind.ACK]
        assert sentence(wait) == "lease a waits for the coordinator to acknowledge its trajectory"
        assert beat.report.queues == {"leases": 1, "unacknowledged": 1}

    play(scene, resend_s=30.0)


def test_a_heartbeat_says_how_long_the_event_loop_stood_still() -> None:
    async def scene(coordinator: Coordinator) -> None:
        await coordinator.hear(Heartbeat)
        threading.Event().wait(0.4)
        await coordinator.hear(Heartbeat, where=lambda beat: beat.report.lag_s > 0.2)

    play(scene)


# ---- policy servers ------------------------------------------------------------------------------


def test_a_host_waits_for_vllm_to_start_and_to_be_started_again(tmp_path: Path) -> None:
    keys, address = new_key_pair(), Address(bind=str(tmp_path / "s0"))
    lives: list[PlayedPolicy] = []

    async def start() -> Any:
        if lives:
            await asyncio.Event().wait()
        lives.append(PlayedPolicy(address, never_answer))
        return await lives[0]._start()

    async def main() -> list[str]:
        ready = asyncio.Event()
        with Wire(keys) as wire:
            door = wire.listen_async("host", address, {}, HOST_LIMITS)
            host = Host(door, start, name="s0", keys=keys)
            running = asyncio.create_task(host.run(ready.set))
            await ready.wait()
            assert lives[0].engine is not None
            lives[0].engine.over.set()
            kinds = (WaitKind.ENGINE_AGAIN, WaitKind.ENGINE_START)
            said = [await said_soon(kind, "policy server s0") for kind in kinds]
            why_away = host._why_away()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            return [*said, why_away]

    again, starting, why_away = asyncio.run(main())
    assert again == "policy server s0 waits for vLLM of s0 to be started again: it was ended"
    assert starting == "policy server s0 waits for vLLM of s0 to start"
    assert re.fullmatch(r"vLLM is starting: it waits [\d.]+ s for vLLM of s0 to start", why_away)
