"""What an episode has done so far, and what to make of it when it ends early."""

import time
from dataclasses import dataclass, replace
from enum import StrEnum

from actors.agent.context_tool import ContextTool
from actors.agent.conversation import ContextTooLongError, Conversation, Opening
from actors.agent.events import Episode, EpisodeListener
from actors.agent.notepad import Notepad
from actors.agent.observations import Observer
from actors.agent.toolbox import Toolbox, ToolSet
from actors.agent.window import ContextWindow
from actors.kernels.interface import DeathCause, KernelDiedError
from common.config import Agent
from common.wire.records import Outcome, Step, Task


class Wait(StrEnum):
    """What an episode is waiting for, as an error names it."""

    NOTHING = "nothing in particular"
    KERNEL = "a kernel"
    CELL = "a running cell"
    POLICY = "the policy server"


@dataclass(slots=True)
class EpisodeState:
    """One episode under way.

    Attributes:
        steps, outputs: one per action; the outputs are whole, the steps hold what was shown.
        last_cell: number of the step whose cell ran last; -1 before any.
        tokens: sampled.
        output_bytes: of all cells.
        reminders: actions that did not parse.
        ended: how it ended, once it did; what happens after that changes nothing.
    """

    task: Task
    conversation: Conversation
    listener: EpisodeListener | None
    observer: Observer
    toolbox: Toolbox
    steps: list[Step]
    outputs: list[str]
    kernel_level: str = ""
    cells: int = 0
    last_cell: int = -1
    tokens: int = 0
    output_bytes: int = 0
    reminders: int = 0
    waiting_for: Wait = Wait.NOTHING
    ended: Outcome | None = None

    def book_calls(self) -> None:
        """Put the tool calls since the last time on record, as calls of the cell that ran last."""
        calls = self.toolbox.take_calls()
        if calls and self.last_cell >= 0:
            step = self.steps[self.last_cell]
            self.steps[self.last_cell] = replace(step, tool_calls=step.tool_calls + calls)

    def tell_step(self) -> None:
        """Tell the listener, if there is one, that the newest step is over."""
        if self.listener is not None:
            self.listener.on_step(len(self.steps) - 1, self.steps[-1])


def begin_episode(
    task: Task,
    conversation: Conversation,
    listener: EpisodeListener | None,
    *,
    agent: Agent,
    tools: ToolSet,
    system: str,
) -> EpisodeState:
    """Put the parts of an episode together and begin its first segment."""
    window, notepad = ContextWindow(), Notepad(agent.notepad_characters)
    steps: list[Step] = []
    outputs: list[str] = []

    def opening() -> Opening:
        return Opening(system=system, task=task.question, notepad=notepad.read())

    observer = Observer(agent, conversation, window=window, notepad=notepad, opening=opening)
    context = ContextTool(
        conversation=conversation,
        window=window,
        steps=steps,
        outputs=outputs,
        opening=opening,
        may_change=lambda: observer.segments < agent.max_segments,
    )
    toolbox = Toolbox(task, agent, tools=tools, notepad=notepad, context=context)
    conversation.begin(opening())
    return EpisodeState(task, conversation, listener, observer, toolbox, steps, outputs)


def finish_episode(state: EpisodeState | None, outcome: Outcome, failure: str) -> Episode:
    """The record of an episode; ``state`` is None where it could not even begin."""
    if state is None:
        return Episode(outcome=outcome, answer=None, steps=(), failure=failure)
    state.book_calls()
    return Episode(
        outcome=outcome,
        answer=state.toolbox.answer,
        steps=tuple(state.steps),
        failure=failure,
        kernel_level=state.kernel_level,
        cells_executed=state.cells,
        tokens_generated=state.tokens,
        notepad=state.observer.notepad_text,
    )


_DEATHS_OF_OURS = (
    DeathCause.FILE,
    DeathCause.CANCELLED,
    DeathCause.CLOSED,
    DeathCause.LAUNCHER_DIED,
    DeathCause.FAILED_TO_START,
)


def judge_failure(
    state: EpisodeState | None, error: Exception, limit_s: float
) -> tuple[Outcome, str]:
    """How an episode that ``error`` ended counts, and what failed, as ``Kind: text``.

    What the policy brought about itself stays, as its failure; only what is ours is dropped.
    """
    failure = f"{type(error).__name__}: {error}"
    if state is None:
        return Outcome.INFRASTRUCTURE, failure
    if state.ended is not None:
        return state.ended, ""
    match error:
        case TimeoutError():
            return _judge_time_out(state, limit_s)
        case KernelDiedError():
            return _judge_death(state, error)
        case ContextTooLongError():
            return Outcome.OUT_OF_CONTEXT, failure
    return Outcome.INFRASTRUCTURE, failure


def _judge_death(state: EpisodeState, error: KernelDiedError) -> tuple[Outcome, str]:
    """A kernel that its own cell ended is the policy's doing; any other death is ours."""
    if state.waiting_for is Wait.CELL and error.cause not in _DEATHS_OF_OURS:
        return Outcome.KERNEL_DIED, ""
    return Outcome.INFRASTRUCTURE, f"KernelDiedError ({error.cause}): {error}"


def _judge_time_out(state: EpisodeState, limit_s: float) -> tuple[Outcome, str]:
    """The policy's own time-out scores nothing and stays; one that we caused is dropped.

    It is the policy's when its cells took the time, less what they only waited for tools, or when
    the time ran out in a cell that did something else than wait for a slow tool.
    """
    now, clock = time.monotonic(), state.toolbox.clock
    waits_s = clock.waits_s(now)
    ours = clock.ended_waiting and waits_s > limit_s / 2
    in_a_cell = state.waiting_for is Wait.CELL
    if clock.cells_s(now) - waits_s > limit_s / 2 or (in_a_cell and not ours):
        return Outcome.TIMED_OUT, ""
    return Outcome.INFRASTRUCTURE, (
        f"EpisodeTimeout: {limit_s:.0f} s (agent.episode_timeout_s) passed waiting for "
        f"{state.waiting_for}"
    )
