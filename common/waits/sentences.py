"""Waits in words, from their records alone."""

import time

from common.waits.catalogue import CATALOGUE
from common.waits.graph import Chain, ChainEnd, Quiet, WaitGraph
from common.waits.records import Waiting


def describe_wait(wait: Waiting, who: str = "") -> str:
    """``policy server s0 waits 12 s for vLLM of s0 to start``."""
    name = who or str(wait.who or "it")
    return f"{name} waits {seconds_in_words(wait.seconds)} for {_words(wait)}"


def describe_chain(chain: Chain, graph: WaitGraph) -> str:
    """The whole way, the root last."""
    text = str(chain.start)
    for number, wait in enumerate(chain.waits):
        text += _joint(wait, is_first=number == 0)
    return text + _ending(chain, graph)


def _joint(wait: Waiting, *, is_first: bool) -> str:
    entry = CATALOGUE[wait.kind]
    if is_first:
        return f" waits {seconds_in_words(wait.seconds)} for {_words(wait)}"
    if entry.joint or entry.is_last_resort:
        return entry.joint.format(on=wait.on, detail=wait.detail)
    return f", which waits {seconds_in_words(wait.seconds)} for {_words(wait)}"


def _words(wait: Waiting) -> str:
    return CATALOGUE[wait.kind].words.format(on=wait.on, detail=wait.detail)


def _ending(chain: Chain, graph: WaitGraph) -> str:
    if chain.ending is ChainEnd.SILENT:
        return f", which {describe_quiet(graph.silent[chain.root], graph.now)}"
    if chain.ending is ChainEnd.CIRCLE:
        return f": a circle, in which everything waits for {chain.root}"
    if note := graph.notes.get(chain.root):
        return f", which {note}"
    return "" if chain.waits else " waits for nothing"


def describe_quiet(quiet: Quiet, now: float) -> str:
    """``has said nothing since 12:03:11 (39 s)``, in the time of this machine."""
    since = time.strftime("%H:%M:%S", time.localtime(now - quiet.seconds))
    return f"{quiet.words} since {since} ({seconds_in_words(quiet.seconds)})"


def seconds_in_words(seconds: float) -> str:
    """``0.3 s``, ``41 s``, ``12 min``, ``3.5 h``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
