"""Builds the objects that rollouts and evaluations share, from a resolved configuration."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from actors.agent.conversation import Conversation
from actors.agent.direct.wording import Wording
from actors.agent.loop import AgentLoop
from actors.agent.prompt import load_template
from actors.agent.token_conversation import TokenConversation
from actors.asked import PolicyLine
from actors.episode import Conversations, EpisodeRunner
from actors.grader import started_grader
from actors.hosted import HostLine
from actors.kernels.pool import KernelPool
from actors.mending import Mending
from actors.policy import PolicyClient
from actors.rewards.judge.pool import Judge
from actors.rewards.means import Means
from actors.tokenizer import FileTokenizer
from actors.tools.tool import Tool
from common.chat import ChatRenderer
from common.config import Config
from common.places import Address, ServerPlace
from common.task_rules import task_folders, task_rules
from common.wire.session import Rotation
from common.wire.sockets import Wire

REQUEST_ATTEMPTS = 5
"""Tries per request to the policy server, with exponential backoff, before the episode is dropped;
one may take as long as an episode."""


def make_policy(
    config: Config, servers: Sequence[ServerPlace], wire: Wire, *, who: str
) -> PolicyClient:
    """A client of these policy servers, as the member ``who``, whose keys ``wire`` has."""
    places = {place.name: place.address for place in servers}
    return _client(config, places, lambda name: HostLine(wire, places[name], who=who))


class Following:
    """Has a client ask whom the coordinator says may be asked, and where; nobody before."""

    def __init__(self, config: Config, wire: Wire, *, who: str) -> None:
        """Ask as the member ``who``, whose keys ``wire`` has."""
        self._addresses: dict[str, Address] = {}
        self.policy = _client(
            config, (), lambda name: HostLine(wire, self._addresses[name], who=who)
        )

    def __call__(self, rotation: Rotation) -> None:
        """Take in a rotation; what was asked of a server that is elsewhere now is asked again."""
        asked = {one.server: one.address for one in rotation.asked}
        moved = {name for name in asked if self._addresses.get(name, asked[name]) != asked[name]}
        if moved:
            staying = [name for name in asked if name not in moved]
            self.policy.rotate(staying, lost={*rotation.lost, *moved})
        self._addresses |= asked
        self.policy.rotate([*asked], lost=rotation.lost)


def _client(
    config: Config, names: Iterable[str], connect: Callable[[str], PolicyLine]
) -> PolicyClient:
    return PolicyClient(
        list(names),
        connect,
        timeout_s=config.agent.episode_timeout_s,
        attempts=REQUEST_ATTEMPTS,
    )


@asynccontextmanager
async def started_judge(
    config: Config, sandboxes: KernelPool | None = None, mending: Mending | None = None
) -> AsyncIterator[Judge]:
    """What asks and scores the tasks of a run, started, and ended again at the end.

    ``sandboxes`` are for tasks whose answers are programs; ``mending`` hears of restarts.

    Raises:
        ConfigError: a reward term or a task type cannot be used.
    """
    async with started_grader(config) as grader:
        judge = Judge(config, Means(sandboxes=sandboxes, grader=grader), mending)
        try:
            await judge.start()
            yield judge
        finally:
            await judge.close()


def token_conversations(config: Config, policy: PolicyClient) -> Conversations:
    """Conversations in token ids with the run's policy servers.

    Raises:
        InputError: the model folder has no usable tokenizer.
    """
    tokenizer = FileTokenizer(Path(config.model.path))
    renderer = ChatRenderer(tokenizer)

    def begin(temperature: float) -> Conversation:
        return TokenConversation(
            policy=policy,
            renderer=renderer,
            tokenizer=tokenizer,
            limit=config.model.max_context,
            temperature=temperature,
            whole_turns=config.agent.mode == "direct",
        )

    return begin


def make_runner(
    config: Config,
    *,
    actor_id: str,
    conversations: Conversations,
    kernels: KernelPool | None,
    tools: Mapping[str, Tool],
    judge: Judge,
    folders: Sequence[Path] = (),
    wording: Wording | None = None,
) -> EpisodeRunner:
    """An episode runner over these parts; ``tools`` and ``judge`` are started.

    Files of tasks come from the folders of the configuration's task files, from ``folders`` and
    from ``tasks.file_folders``. Direct mode needs no ``kernels``.

    Raises:
        ConfigError: the prompt template cannot be used.
    """
    loop = AgentLoop(
        agent=config.agent,
        kernels=kernels,
        tools=tools,
        prompt=load_template(config.agent.system_prompt),
        cell_timeout_s=config.kernel.cell_timeout_s,
        output_bytes=config.kernel.output_bytes,
    )
    return EpisodeRunner(
        actor_id=actor_id,
        conversations=conversations,
        loop=loop,
        judge=judge,
        rules=task_rules(config),
        folders=(*task_folders(config), *folders),
        wording=wording,
    )
