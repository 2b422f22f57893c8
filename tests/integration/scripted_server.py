"""A policy server that plays scripts: the real host, and no model.

``python scripted_server.py PLAN MODEL_FOLDER SCRIPTS.json [VERSION]`` where the scripts map a
question to the list of its actions. Which action is due is read off the number of observations in
the prompt. It samples as the version that is in the file ``VERSION``, or as 0.
"""

import asyncio
import json
import sys
from pathlib import Path

import numpy as np

from actors.inference.host.serving import HOST_LIMITS, Host
from actors.inference.staging import StagedFiles
from actors.tokenizer import FileTokenizer
from common.chat import escape_tags
from common.places import RunPlan
from common.plan_file import load_plan, own_keys, tell_ready
from common.wire.hosting import Generate, Generated, ServerLoad
from common.wire.sockets import Wire


class ScriptedEngine:
    """Samples what the script says with certainty."""

    def __init__(
        self, model: Path, scripts: dict[str, list[str]], version: Path | None = None
    ) -> None:
        self._tokenizer = FileTokenizer(model)
        self._version = version
        self._by_prompt = {escape_tags(question): actions for question, actions in scripts.items()}

    async def generate(self, request: Generate) -> Generated:
        text = self._tokenizer.decode(request.token_ids.tolist())
        turns = text.split("user\n")[1:]
        asked = [turn.split("<|im_end|>", 1)[0] for turn in turns]
        # Before it are the worked examples of the system prompt.
        start = next(n for n, question in enumerate(asked) if question in self._by_prompt)
        done = "".join(turns[start:]).count("<output>")
        ids = np.array(self._tokenizer.encode(self._by_prompt[asked[start]][done]), dtype=np.int32)
        return Generated(
            number=request.number,
            token_ids=ids,
            logprobs=np.zeros(len(ids), dtype=np.float32),
            versions=np.full(len(ids), int(await self.version()), dtype=np.int32),
            finish_reason="stop",
        )

    async def swap(self, staged: StagedFiles) -> float:
        raise AssertionError("nobody publishes weights to this engine")

    async def version(self) -> str:
        return "0" if self._version is None else self._version.read_text()

    def load(self) -> ServerLoad:
        return ServerLoad()

    async def ended(self) -> str:
        await asyncio.Event().wait()
        return ""

    def close(self) -> None:
        pass


async def serve(plan: RunPlan, engine: ScriptedEngine) -> None:
    (place,) = plan.servers
    Path(place.address.bind).unlink(missing_ok=True)
    keys = own_keys(plan, place.name)

    async def start() -> ScriptedEngine:
        return engine

    def ready() -> None:
        tell_ready(plan, place.name)
        print("ready", flush=True)

    with Wire(keys) as wire:
        known = {member.key: member.name for member in plan.members}
        door = wire.listen_async("policy server", place.address, known, HOST_LIMITS)
        await Host(door, start, name=place.name, keys=keys).run(ready)


if __name__ == "__main__":
    told, model, script, *version = map(Path, sys.argv[1:])
    engine = ScriptedEngine(model, json.loads(script.read_text()), *version)
    asyncio.run(serve(load_plan(told), engine))
