"""``lzero join`` and ``lzero drain``: somebody comes into a run, or leaves it, while it goes on.

consumes   the address and the credential of a join file; the configuration that the welcome holds
produces   an actor or a policy server of the run, with a name and a key of its own
waits for  the coordinator's answers; the end of the actor; word that the server is to leave
unblocked by  the coordinator; after ``transport.silence_s`` without a word from it all ends

Nothing else is shared with the run: what the process reads lies in a private folder of its own.
"""

import dataclasses
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from common.config import Config
from common.config_file import load_config
from common.errors import InputError, ProtocolError, RunError
from common.join_file import JoinFile, read_join_file
from common.places import JOIN, LEARNER, Address, Member, Role, RunPlan, ServerPlace
from common.plan_file import keys_file, own_keys, save_plan, tell_coordinator
from common.whole_file import write_whole
from common.wire.codec import SCHEMA_VERSION, Record, decode, encode
from common.wire.joining import Admitted, Join, Listed, SendAway, SentAway, Serving
from common.wire.keys import KeyPair, write_key_pair
from common.wire.session import Drain, Leave, Refused
from common.wire.sockets import Line, Wire, new_key_pair
from launch.plan.topology import RunFiles, joined_process
from launch.screen import say
from launch.starters import specs
from launch.starters.local import Interrupted, Supervisor, interruptible
from launch.starters.private import fresh_folder

ANSWER_S = 30.0
"""Longest wait for the coordinator's answer to who is no member."""
SERVING_EVERY_S = 1.0
_LOOK_MS = 100


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Joined:
    """A member that has been admitted."""

    name: str
    role: Role
    config: Config
    plan: RunPlan
    logs: Path


def join(file: Path, role: Role, console: Console) -> None:
    """Take part in a run until it ends, somebody drains the member, or Ctrl-C.

    Raises:
        InputError: there is no such file, nobody answers, or the run refuses.
        RunError: the process ended, or the run has been silent for too long.
        Interrupted: somebody ended this command; what an actor held it has handed back.
    """
    target = read_join_file(file)
    with interruptible(), fresh_folder() as private:
        joined = _admitted(target, role, private, logs=file.resolve().parent / "logs")
        say(console, f"joined the run as {joined.name}")
        with Supervisor(tell=lambda text: say(console, text)) as supervisor:
            if role == "actor":
                _act(joined, supervisor)
            else:
                _serve(joined, supervisor, lambda text: say(console, f"{joined.name}: {text}"))
    say(console, f"{joined.name} has left the run")


def drain(file: Path, name: str) -> str:
    """Have a member leave the run; what becomes of it, in words.

    Raises:
        InputError: there is no such file, nobody answers, or the member cannot leave.
    """
    answer = ask(read_join_file(file), SendAway(name=name))
    if not isinstance(answer, SentAway):
        raise InputError(f"the run answered with {type(answer).__name__} only")
    return answer.text


def ask(target: JoinFile, wish: Join | SendAway) -> Record:
    """What the coordinator answers to who holds the credential.

    Raises:
        InputError: nothing, or that it will not.
    """
    with _line(target.keys, target.coordinator, JOIN) as line:
        line.send(encode(wish))
        frames = line.receive(timeout_ms=int(1000 * ANSWER_S))
        if frames is None:
            raise InputError(
                f"nobody answers at {target.coordinator} within {ANSWER_S:.0f} s: is the run "
                "still on, and is the join file of its last start?"
            )
        answer = _read(frames)
    if isinstance(answer, Refused):
        raise InputError(f"the run refuses: {answer.reason}")
    return answer


def _read(frames: list[memoryview]) -> Record:
    try:
        return decode(frames)
    except ProtocolError as error:
        raise InputError(f"the run runs another version of l-zero: {error}") from error


@contextmanager
def _line(keys: KeyPair, coordinator: Address, name: str) -> Iterator[Line]:
    identity = f"{name}#{secrets.token_hex(16)}".encode()
    with Wire(keys) as wire:
        yield wire.connect(coordinator, identity=identity)


def _admitted(target: JoinFile, role: Role, private: Path, *, logs: Path) -> Joined:
    """Ask to be let in, and write down for the process what the welcome says."""
    keys = new_key_pair()
    answer = ask(target, Join(role=role, key=keys.public, schema_version=SCHEMA_VERSION))
    if not isinstance(answer, Admitted):
        raise InputError(f"the run answered with {type(answer).__name__} only")
    files = RunFiles(config=private / "config.json", private=private)
    write_whole(files.config, answer.config)
    config = load_config(files.config)
    place = ServerPlace(
        name=answer.name, address=Address(bind=str(private / answer.name), key=keys.public)
    )
    learner = Member(name=LEARNER, role="learner", key=target.coordinator.key)
    plan = RunPlan(
        private=str(private),
        coordinator=target.coordinator,
        weights=answer.weights,
        servers=(place,) if role == "policy-server" else (),
        members=(learner,),  # who else may ask, it says
        processes=(joined_process(config, files, answer.name, role),),
    )
    write_key_pair(keys_file(private, answer.name), keys)
    save_plan(plan)
    tell_coordinator(plan, target.coordinator)
    logs = logs if logs.is_dir() else private
    return Joined(name=answer.name, role=role, config=config, plan=plan, logs=logs)


def _act(joined: Joined, supervisor: Supervisor) -> None:
    """Be an actor until there are no more tasks for it."""
    grace_s = joined.config.run.grace_s
    (spec,) = specs.actors(joined.plan, joined.logs, grace_s=grace_s, hint=str)
    supervisor.spawn(spec)
    try:
        supervisor.finish(spec.name)
    except Interrupted:
        supervisor.end_in_order(spec.name)
        raise


def _serve(joined: Joined, supervisor: Supervisor, tell: Callable[[str], None]) -> None:
    """Be a policy server until word comes to leave."""
    (place,) = joined.plan.servers
    (spec,) = specs.policy_servers(joined.plan, joined.config, joined.logs)
    tell("starting vLLM")
    supervisor.start(spec)
    keys = own_keys(joined.plan, joined.name)
    with _line(keys, joined.plan.coordinator, joined.name) as line:
        silence_s = joined.config.transport.silence_s
        try:
            _take_part(line, place.address, supervisor, silence_s=silence_s, tell=tell)
        finally:
            line.send(encode(Leave(reason="the policy server has ended")))
            line.receive(timeout_ms=_LOOK_MS)


def _take_part(
    line: Line,
    address: Address,
    supervisor: Supervisor,
    *,
    silence_s: float,
    tell: Callable[[str], None],
) -> None:
    """Say that it can be asked, as long as the coordinator wants it."""
    heard, said, told = time.monotonic(), -SERVING_EVERY_S, ""
    while True:
        now = time.monotonic()
        supervisor.check()
        if now - heard > silence_s:
            raise RunError(
                f"the coordinator has been silent for {silence_s:.0f} s (transport.silence_s); "
                "the run is over, or its learner is not back"
            )
        if now - said >= SERVING_EVERY_S:
            said = now
            line.send(encode(Serving(address=address)))
        if (frames := line.receive(timeout_ms=_LOOK_MS)) is None:
            continue
        heard, answer = time.monotonic(), _read(frames)
        if isinstance(answer, Drain):
            tell(f"leaves: {answer.reason}")
            return
        if isinstance(answer, Listed):
            news = answer.standing + (f", {answer.cause}" if answer.cause else "")
            if news != told:
                told = news
                tell(news)
