"""How far a fine-tuning is, read from its lines of progress: one line for people. Pure."""

import re
from dataclasses import dataclass

from launch.report.training_view import describe_duration

_STEP = re.compile(
    r"trained step=(?P<step>\d+) of=(?P<steps>\d+) loss=(?P<loss>\S+) seconds=(?P<seconds>\d+)"
)


@dataclass(slots=True)
class FineTuningNews:
    """Keeps the last thing that was said."""

    text: str = ""
    first: int = 0
    """Steps that were done when this attempt began; its seconds begin there."""

    def take(self, line: str) -> None:
        """A line as ``learner.sft.main`` logs it; others than those of steps change nothing."""
        if (told := _STEP.search(line)) is None:
            return
        step, steps, seconds = (int(told[name]) for name in ("step", "steps", "seconds"))
        if not self.text:
            self.first = step - 1
        left = seconds / max(1, step - self.first) * (steps - step)
        self.text = (
            f"step {step} of {steps}, loss {told['loss']}, about {describe_duration(left)} left"
        )
