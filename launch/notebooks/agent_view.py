"""Shows an agent at work in a terminal: thoughts dimmed, code highlighted, outputs in boxes.

``LiveView`` is for terminals and shows an action while it is written; ``PlainView`` writes whole
steps as lines, for pipes and logs. Both are listeners of an episode.
"""

from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.spinner import Spinner
from rich.syntax import Syntax
from rich.text import Text

from common.chat import parse_action
from common.visible import visible
from common.wire.records import Step

_CODE, _CODE_END = "<code>", "</code>"
_THEME = "ansi_dark"
_MARGIN = 6
"""Lines of the terminal that a growing action leaves free."""
_REFRESH_PER_S = 12
_FAILED = ("error", "timed_out", "died")


@dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """What is said when the episode is over.

    Attributes:
        answer: what was submitted, or None.
        outcome: how it ended, for people.
        failure: what failed, if anything did.
        facts: what else is said, in one line.
    """

    answer: str | None
    outcome: str
    failure: str
    facts: str


def split_growing(text: str) -> tuple[str, str]:
    """Thoughts and code of an action that is still being written; either may be empty."""
    thoughts, closed, rest = text.rpartition("</think>")
    before, _, code = (rest if closed else text).partition(_CODE)
    before = thoughts + before
    for tag in ("<think>", "</think>"):
        before = before.replace(tag, "")
    return before.strip(), code.removesuffix(_CODE_END).strip("\n")


class LiveView:
    """Shows an episode on a terminal."""

    def __init__(self, console: Console, *, direct: bool = False) -> None:
        """Draw on ``console``; ``direct``: the action is the answer, there are no cells."""
        self._console = console
        self._direct = direct
        self._live: Live | None = None
        self._text = ""

    def on_delta(self, step: int, text: str) -> None:
        """A piece of the action was sampled."""
        if not self._text:
            self._begin(step)
        self._text += text
        self._show(self._growing())

    def on_action(self, step: int, text: str, code: str | None) -> None:
        """The action is whole; its cell is about to run."""
        if self._live is None:
            self._begin(step)
        self._end()
        if self._direct:
            if thoughts := _apart(text):
                self._console.print(_thoughts(thoughts))
            return
        if code is None:
            self._console.print(Text(visible(text), style="yellow"))
            return
        action = parse_action(text)
        if action is not None and action.think.strip():
            self._console.print(_thoughts(action.think.strip()))
        self._console.print(_code(code))
        self._show(Spinner("dots", Text("running the cell", style="dim")))

    def on_step(self, number: int, step: Step) -> None:
        """The step is over."""
        self._end()
        if step.observation or step.code is not None:
            self._console.print(_output(step))

    def finish(self, ending: Ending) -> None:
        """Say what came of it."""
        self._end()
        if ending.answer is not None:
            self._console.print(
                Panel(Text(visible(ending.answer)), title="answer", border_style="green")
            )
        else:
            said = f"no answer: {ending.outcome}" + (
                f"\n{ending.failure}" if ending.failure else ""
            )
            self._console.print(Panel(Text(visible(said)), border_style="red"))
        self._console.print(Text(visible(ending.facts), style="dim"))

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._end()

    def _begin(self, step: int) -> None:
        self._console.rule(f"[bold]{step + 1}", style="cyan", align="left")
        self._live = Live(console=self._console, transient=True, refresh_per_second=_REFRESH_PER_S)
        self._live.start()

    def _show(self, what: RenderableType) -> None:
        if self._live is None:
            self._live = Live(
                console=self._console, transient=True, refresh_per_second=_REFRESH_PER_S
            )
            self._live.start()
        self._live.update(what)

    def _end(self) -> None:
        if self._live is not None:
            self._live.stop()
        self._live, self._text = None, ""

    def _growing(self) -> RenderableType:
        """The end of the action so far, as much as the terminal holds."""
        room = max(4, self._console.height - _MARGIN)
        thoughts, code = split_growing(self._text)
        shown = code.split("\n")[-room:] if code else []
        lines = _thoughts(thoughts).wrap(self._console, self._console.width)
        above = lines[-(room - len(shown)) :] if room > len(shown) else []
        return Group(*above, _code("\n".join(shown))) if shown else Group(*above)


class PlainView:
    """Writes an episode as lines, step by step."""

    def __init__(self, console: Console, *, direct: bool = False) -> None:
        """Write to ``console``; ``direct``: the action is the answer, there are no cells."""
        self._console = console
        self._direct = direct

    def on_delta(self, step: int, text: str) -> None:
        """Wait for the whole action."""

    def on_action(self, step: int, text: str, code: str | None) -> None:
        """Write the action."""
        if self._direct:
            if thoughts := _apart(text):
                self._write(f"[{step + 1}] think", thoughts)
            return
        action = parse_action(text)
        if code is None or action is None:
            self._write(f"[{step + 1}] no cell", text)
            return
        if action.think.strip():
            self._write(f"[{step + 1}] think", action.think.strip())
        self._write(f"[{step + 1}] code", code)

    def on_step(self, number: int, step: Step) -> None:
        """Write the observation."""
        if step.observation:
            self._write(f"[{number + 1}] output", step.observation)

    def finish(self, ending: Ending) -> None:
        """Say what came of it."""
        if ending.answer is not None:
            self._write("answer", ending.answer)
        else:
            self._write("no answer", f"{ending.outcome} {ending.failure}".strip())
        self._write("", ending.facts)

    def close(self) -> None:
        """Nothing to do."""

    def _write(self, title: str, text: str) -> None:
        lines = visible(text).rstrip().split("\n")
        if title:
            lines = [f"{title}:", *(f"    {line}".rstrip() for line in lines)]
        for line in lines:
            self._console.print(Text(line), soft_wrap=True)


AgentView = LiveView | PlainView
"""What a command shows an episode with."""


def make_view(console: Console, *, direct: bool = False) -> AgentView:
    """The view that fits the console; ``direct``: there will be no cells."""
    kind = LiveView if console.is_terminal else PlainView
    return kind(console, direct=direct)


def _apart(text: str) -> str:
    """The thoughts before a direct answer; empty for none."""
    thoughts, tag, _ = text.partition("</think>")
    return thoughts.replace("<think>", "").strip() if tag else ""


def _thoughts(text: str) -> Text:
    return Text(visible(text), style="dim italic")


def _code(code: str) -> Syntax:
    return Syntax(visible(code), "python", theme=_THEME, word_wrap=True, padding=(0, 1))


def _output(step: Step) -> Panel:
    failed = step.status in _FAILED
    title = {"timed_out": "output (timed out)", "died": "output (the kernel died)"}.get(
        step.status, "output" if step.code is not None else "reply"
    )
    took = f"{step.seconds:.2f} s" if step.seconds >= 0.01 else ""
    body = Text(visible(step.observation).rstrip()) if step.observation else Text("(none)", "dim")
    return Panel(
        body,
        title=title,
        title_align="left",
        subtitle=took,
        subtitle_align="right",
        border_style="red" if failed else "bright_black",
    )
