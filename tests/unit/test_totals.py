"""Sums over a run survive a checkpoint."""

from collections import Counter

from learner.saving import FailedSaves
from learner.totals import Totals, pack_ledger, unpack_ledger


def test_totals_and_ledger_come_back_from_the_checkpoint() -> None:
    totals = Totals(
        staleness=Counter({0: 3, 2: 1}),
        mismatch_sum=0.5,
        mismatch_max=0.25,
        mismatch_tokens=7,
        wait_s=1.5,
        earlier_paused_s=0.5,
        earlier_s=10.0,
        failed_saves=FailedSaves(2, "no room"),
    )

    ledger, restored = unpack_ledger(pack_ledger(b"state", totals))

    assert ledger == b"state"
    assert restored == totals
    assert restored.seconds == 10.0
