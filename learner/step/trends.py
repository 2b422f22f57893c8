"""Watches the numbers of successive steps for what one step alone does not show."""

from collections import deque
from collections.abc import Sequence
from statistics import fmean, median

from common.telemetry.alerts import present_alerts
from common.telemetry.step_record import StepRecord
from learner.step.breakdown import ALL
from learner.step.metrics import ESS_WARNING, StepMetrics

_LOW_STEPS = 5
_ENTROPY_STEPS, _ENTROPY_FACTOR = 50, 0.5
_NORM_STEPS, _NORM_FACTOR, _NORM_NEEDED = 100, 10.0, 20
_LENGTH_STEPS, _LENGTH_FACTOR, _LENGTH_EDGE = 100, 1.5, 10

_OF_UPDATES = ("sample size", "entropy", "gradient", "length")
"""What only a step with an update tells; without one it stands as it was."""


class Trends:
    """The last steps of a run; each of its warnings names a cause and a remedy.

    A warning is given when its condition begins to hold, and again once it held no longer in
    between.
    """

    def __init__(self, *, steps: int) -> None:
        """Begin without history of a run of ``steps`` steps."""
        self._steps = steps
        self._records: deque[StepRecord] = deque(maxlen=_LENGTH_STEPS)
        self._low = 0
        self._entropies: deque[float] = deque(maxlen=_ENTROPY_STEPS)
        self._norms: deque[float] = deque(maxlen=_NORM_STEPS)
        self._lengths: deque[float] = deque(maxlen=_LENGTH_STEPS)
        self._holding: set[str] = set()

    def observe(self, metrics: StepMetrics, record: StepRecord) -> Sequence[str]:
        """Take in a step and its record; what has become wrong with it, usually nothing."""
        self._records.append(record)
        alerts = present_alerts(self._records, steps=self._steps)
        found = {alert.kind: alert.text for alert in alerts}
        if metrics.update is not None and metrics.update.applied and ALL in metrics.kinds:
            found |= {
                "sample size": self._sample_size(metrics),
                "entropy": self._entropy(metrics),
                "gradient": self._gradient(metrics.update.gradient_norm),
                "length": self._length(metrics.kinds[ALL].tokens_mean),
            }
        else:
            found |= {name: name for name in self._holding if name in _OF_UPDATES}
        begun = [text for name, text in found.items() if text and name not in self._holding]
        self._holding = {name for name, text in found.items() if text}
        return begun

    def _sample_size(self, metrics: StepMetrics) -> str:
        self._low = self._low + 1 if metrics.effective_sample_size < ESS_WARNING else 0
        if self._low < _LOW_STEPS:
            return ""
        return (
            f"effective sample size has been below {ESS_WARNING:g} for {self._low} steps in a row: "
            "training hardly learns from its data; lower learner.max_staleness or "
            "learner.learning_rate, or use objective.name = 'token_tis'"
        )

    def _entropy(self, metrics: StepMetrics) -> str:
        now = metrics.diagnostics()["entropy_estimate"]
        self._entropies.append(now)
        if now >= _ENTROPY_FACTOR * max(self._entropies):
            return ""
        return (
            f"entropy fell from {max(self._entropies):.3g} to {now:.3g} nats per token within "
            f"{len(self._entropies)} steps: the policy stops exploring; lower "
            "learner.learning_rate, or raise objective.entropy or objective.kl_reference"
        )

    def _gradient(self, norm: float) -> str:
        usual = median(self._norms) if len(self._norms) >= _NORM_NEEDED else float("inf")
        self._norms.append(norm)
        if norm <= _NORM_FACTOR * usual:
            return ""
        return (
            f"the gradient's norm is {norm:.3g}, {norm / max(usual, 1e-12):.0f} times its median "
            f"over the last {len(self._norms) - 1} steps; lower learner.grad_clip if this goes on"
        )

    def _length(self, tokens: float) -> str:
        self._lengths.append(tokens)
        if len(self._lengths) < 2 * _LENGTH_EDGE:
            return ""
        every = list(self._lengths)
        before, now = fmean(every[:_LENGTH_EDGE]), fmean(every[-_LENGTH_EDGE:])
        if now <= _LENGTH_FACTOR * before:
            return ""
        return (
            f"actions grew from {before:.0f} to {now:.0f} tokens within {len(every)} steps, which "
            "often comes before a collapse; look at episodes, give rewards.terms.length a "
            "negative weight, or lower agent.max_action_tokens"
        )
