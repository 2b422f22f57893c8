"""The learning rate over the steps of a training. Pure."""


def learning_rate_share(step: int, steps: int, warmup: int, final: float) -> float:
    """Share of the full learning rate at ``step`` of ``steps``: linear warm-up, linear decay.

    Args:
        step: steps taken so far; beyond ``steps`` the share stays at ``final``.
        steps: of the whole training.
        warmup: steps over which it rises.
        final: what the decay ends at; 1 for none.
    """
    return min(1.0, (step + 1) / max(1, warmup)) * (1.0 - (1.0 - final) * min(1.0, step / steps))
