"""The plan of a run as a file that its processes read, and what they find by it.

It lies in the private folder of the run with the keys of the members; ``common.places`` says what
is in it. What a process only knows once it runs, it adds as a file of its own: the address that the
coordinator has really bound, that the learner stopped when asked to, or what it ended of.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.config_file import from_tables, read_tables
from common.errors import InputError
from common.json_output import json_text
from common.places import Address, Member, RunPlan, ServerPlace
from common.whole_file import write_whole
from common.wire.keys import KeyPair, read_key_pair

PLAN = "plan.json"
_BOUND = "coordinator.json"
_STOPPED = "stopped"
_JOINED = "joined.json"
_LEAVING = "leaving.json"
_WELCOMED = ".welcomed"
_BEGUN = "begun"
_ENDED = ".ended.json"
_READY = ".ready"


def save_plan(plan: RunPlan) -> Path:
    """Write the plan into its private folder; where it is now."""
    path = Path(plan.private) / PLAN
    write_whole(path, json_text(dataclasses.asdict(plan), indent=1) + "\n")
    return path


def load_plan(path: Path) -> RunPlan:
    """The plan in a file.

    Raises:
        ConfigError: there is none that can be read.
    """
    return from_tables(RunPlan, read_tables(path, called="plan"), where=f"plan {path}")


def keys_file(private: Path, member: str) -> Path:
    """Where the keys of a member are."""
    return private / f"{member}.key"


def own_keys(plan: RunPlan, member: str) -> KeyPair:
    """The keys of a member.

    Raises:
        InputError: there are none that this user can read.
    """
    return read_key_pair(keys_file(Path(plan.private), member))


def server_place(plan: RunPlan, name: str) -> ServerPlace:
    """The place of the policy server ``name``.

    Raises:
        InputError: the plan has none of that name.
    """
    for place in plan.servers:
        if place.name == name:
            return place
    known = ", ".join(place.name for place in plan.servers)
    raise InputError(f"the plan of the run has no policy server '{name}', only: {known}")


def tell_coordinator(plan: RunPlan, address: Address) -> None:
    """Say where the coordinator listens, now that it does."""
    path = Path(plan.private) / _BOUND
    write_whole(path, json_text(dataclasses.asdict(address)) + "\n")


def told_coordinator(plan: RunPlan) -> Address | None:
    """Where the coordinator listens; None before it does."""
    path = Path(plan.private) / _BOUND
    if not path.is_file():
        return None
    return from_tables(Address, read_tables(path, called="address"), where=str(path))


def tell_joined(plan: RunPlan, members: Sequence[Member]) -> None:
    """Say who was admitted since the plan was made; a learner that begins again knows them."""
    path = Path(plan.private) / _JOINED
    write_whole(path, json_text([dataclasses.asdict(member) for member in members]) + "\n")


def told_joined(plan: RunPlan) -> tuple[Member, ...]:
    """Who was admitted since the plan was made."""
    path = Path(plan.private) / _JOINED
    if not path.is_file():
        return ()
    return tuple(Member(**member) for member in json.loads(path.read_text(encoding="utf-8")))


def tell_leaving(plan: RunPlan, names: Sequence[str]) -> None:
    """Say which members are to leave; a learner that begins again does not call them back."""
    write_whole(Path(plan.private) / _LEAVING, json_text(list(names)) + "\n")


def told_leaving(plan: RunPlan) -> tuple[str, ...]:
    """Which members are to leave."""
    path = Path(plan.private) / _LEAVING
    if not path.is_file():
        return ()
    return tuple(json.loads(path.read_text(encoding="utf-8")))


def tell_welcomed(plan: RunPlan, actor: str) -> None:
    """Say that the coordinator has welcomed an actor: it can do its work."""
    (Path(plan.private) / f"{actor}{_WELCOMED}").touch()


def told_welcomed(plan: RunPlan, actor: str) -> bool:
    """Whether the coordinator has ever welcomed that actor."""
    return (Path(plan.private) / f"{actor}{_WELCOMED}").exists()


def tell_ready(plan: RunPlan, server: str) -> None:
    """Say that a policy server samples."""
    (Path(plan.private) / f"{server}{_READY}").touch()


def told_ready(plan: RunPlan, server: str) -> bool:
    """Whether that policy server has ever sampled."""
    return (Path(plan.private) / f"{server}{_READY}").exists()


def tell_stopped(plan: RunPlan) -> None:
    """Say that the learner ended because it was asked to, with all that it had saved."""
    (Path(plan.private) / _STOPPED).touch()


def told_stopped(plan: RunPlan) -> bool:
    """Whether the learner ended because it was asked to; torchrun keeps its exit status back."""
    return (Path(plan.private) / _STOPPED).exists()


def tell_begun(plan: RunPlan) -> None:
    """Say that a learner has begun to train: who comes after it goes on with what it left."""
    (Path(plan.private) / _BEGUN).touch()


def told_begun(plan: RunPlan) -> bool:
    """Whether an earlier learner of this plan had begun to train."""
    return (Path(plan.private) / _BEGUN).exists()


@dataclass(frozen=True, kw_only=True, slots=True)
class LastWord:
    """What a process ended of: in words, and whether the next one would only end of it again."""

    reason: str
    is_final: bool


def tell_ending(plan: RunPlan, member: str, word: LastWord) -> None:
    """Say what a process ends of; of several ranks the first one's word counts, or a final one."""
    path = _ending_file(plan, member)
    if word.is_final or not path.exists():
        write_whole(path, json_text(dataclasses.asdict(word)) + "\n")


def told_ending(plan: RunPlan, member: str) -> LastWord | None:
    """What a process ended of; None where it could not say."""
    path = _ending_file(plan, member)
    if not path.is_file():
        return None
    return from_tables(LastWord, read_tables(path, called="last word"), where=str(path))


def forget_ending(plan: RunPlan, member: str) -> None:
    """The next process of that name is about to begin."""
    _ending_file(plan, member).unlink(missing_ok=True)


def _ending_file(plan: RunPlan, member: str) -> Path:
    return Path(plan.private) / f"{member}{_ENDED}"
