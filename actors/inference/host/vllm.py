"""vLLM as the engine of a policy server: its front in this process, its core in one of its own."""

import asyncio
import itertools
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from vllm import SamplingParams
from vllm.distributed.weight_transfer.base import WeightTransferUpdateRequest
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.exceptions import VLLMClientError
from vllm.inputs import tokens_input
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.metrics.loggers import StatLoggerBase

from actors.inference.host.engine import TORN, EngineGoneError, WrongRequestError
from actors.inference.host.load import LoadMeter
from actors.inference.staging import StagedFiles
from actors.inference.vllm_options import Option
from common.wire.generation import version_number
from common.wire.hosting import Generate, Generated, ServerLoad
from common.wire.records import Int32

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.1


class _Statistics(StatLoggerBase):  # type: ignore[misc]
    """Tells a meter vLLM's own statistics."""

    def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
        """See the base class."""
        self.meter = LoadMeter()

    def record(
        self,
        scheduler_stats: Any,
        iteration_stats: Any,
        mm_cache_stats: Any = None,
        engine_idx: int = 0,
    ) -> None:
        """Take down one iteration of the scheduler."""
        if iteration_stats is not None:
            self.meter.went_on(iteration_stats.num_preempted_reqs)
            self.meter.sampled(iteration_stats.num_generation_tokens)
        if scheduler_stats is not None:
            self.meter.scheduled(
                running=scheduler_stats.num_running_reqs,
                waiting=scheduler_stats.num_waiting_reqs,
                cache_share=float(scheduler_stats.kv_cache_usage),
                now=time.monotonic(),
            )

    def log_engine_initialized(self) -> None:
        """Nothing to say."""


class VllmEngine:
    """One life of vLLM."""

    def __init__(self, llm: AsyncLLM, meter: LoadMeter) -> None:
        """Made by ``start_vllm``."""
        self._llm = llm
        self._meter = meter
        self._numbers = itertools.count()

    async def generate(self, request: Generate) -> Generated:
        """See ``Engine``."""
        self._meter.asked(now=time.monotonic())
        try:
            return await self._generate(request)
        except (VLLMClientError, ValueError) as error:
            raise WrongRequestError(str(error)) from error
        except EngineDeadError as error:
            raise EngineGoneError(str(error)) from error
        finally:
            self._meter.answered(now=time.monotonic())

    async def _generate(self, request: Generate) -> Generated:
        prompt = tokens_input(request.token_ids.tolist())
        number = str(next(self._numbers))
        answers = self._llm.generate(prompt, _sampling(request), number)
        (sampled,) = [answer async for answer in answers][-1].outputs
        ids = list(sampled.token_ids)
        return Generated(
            number=request.number,
            token_ids=np.array(ids, dtype=np.int32),
            logprobs=np.array(_logprobs(ids, sampled.logprobs), dtype=np.float32),
            versions=_versions(sampled.weight_versions or [], len(ids)),
            finish_reason=str(sampled.finish_reason),
        )

    async def swap(self, staged: StagedFiles) -> float:
        """See ``Engine``; what is being sampled is computed again under the new weights."""
        began = time.monotonic()
        await self._llm.pause_generation(mode="keep")
        self._meter.paused(now=time.monotonic())
        try:
            await self._load(staged)
        except BaseException:
            await self._llm.update_weight_version(TORN)
            raise
        finally:
            await self._llm.resume_generation()
            self._meter.resumed(now=time.monotonic())
        return time.monotonic() - began

    async def _load(self, staged: StagedFiles) -> None:
        paths = {"path": staged.own.path, "base": staged.base.path if staged.base else ""}
        await self._llm.start_weight_update()
        try:
            await self._llm.update_weights(WeightTransferUpdateRequest(update_info=paths))
        except Exception:
            with suppress(Exception):  # it may have closed the update itself
                await self._llm.finish_weight_update()
            raise
        await self._llm.finish_weight_update(str(staged.own.manifest.version))

    async def version(self) -> str:
        """See ``Engine``."""
        try:
            return str(await self._llm.get_weight_version())
        except EngineDeadError as error:
            raise EngineGoneError(str(error)) from error

    def load(self) -> ServerLoad:
        """See ``Engine``."""
        return self._meter.load

    async def ended(self) -> str:
        """See ``Engine``."""
        while not self._llm.errored:  # noqa: ASYNC110  vLLM tells nobody
            await asyncio.sleep(_LOOK_EVERY_S)
        return "vLLM's engine has ended; what it said is above"

    def close(self) -> None:
        """See ``Engine``."""
        self._llm.shutdown(timeout=0)


async def start_vllm(options: dict[str, Option]) -> VllmEngine:
    """A vLLM that is ready; ``options`` are those of ``engine_options``."""
    loggers: list[_Statistics] = []

    def statistics(config: Any, engine_index: int = 0) -> _Statistics:
        loggers.append(_Statistics(config, engine_index))
        return loggers[-1]

    began = time.monotonic()
    arguments = AsyncEngineArgs(**options)
    llm = await asyncio.to_thread(AsyncLLM.from_engine_args, arguments, stat_loggers=[statistics])
    log.info("vLLM is ready seconds=%.1f", time.monotonic() - began)
    return VllmEngine(llm, loggers[0].meter)


def _sampling(request: Generate) -> SamplingParams:
    return SamplingParams(
        max_tokens=request.max_tokens,
        temperature=request.temperature,
        logprobs=0,
        flat_logprobs=True,
        skip_special_tokens=False,
        detokenize=bool(request.stop_strings),
        stop=list(request.stop_strings) or None,
        stop_token_ids=list(request.stop_token_ids) or None,
        seed=request.seed,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _logprobs(ids: Sequence[int], found: Any) -> list[float]:
    """The log-probability of each sampled token; it comes first at its position."""
    firsts = found.start_indices
    if [found.token_ids[first] for first in firsts] != list(ids):
        raise RuntimeError("vLLM gave log-probabilities of other tokens than it sampled")
    return [found.logprobs[first] for first in firsts]


def _versions(spans: Sequence[Any], length: int) -> Int32:
    versions = np.full(length, -1, dtype=np.int32)
    for span in spans:
        versions[span.start : span.end] = version_number(span.version)
    return versions
