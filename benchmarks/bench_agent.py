"""The agent on models that nobody trained for it: prompts and tools against each other.

    python -m benchmarks.bench_agent (--model FOLDER | --url URL) --tasks FILE [--n N]
        [--prompt NAME[+TOOL...] ...] [--form chat|tokens] [--corpus INDEX] [--json PATH]

The variants run one after the other, on the same tasks and the same server:

* shipped: the system prompt and the tools of ``lzero agent``; ``shipped+`` only submits;
* direct: no notebook; the question asks for a short answer on a last line, which is read;
* any other name is a template of benchmarks/agent/prompts, or the path of one.

*Strict* actions are in the grammar as they were sampled, *accepted* ones as the agent reads them.
"""

import argparse
import asyncio
import logging
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path

from rich.console import Console

from benchmarks.agent.agents import Runs, chat_agent, token_agent
from benchmarks.agent.measures import Measured, measure_variant
from benchmarks.agent.served import served
from benchmarks.agent.variants import Limits, Variant, read_variant
from benchmarks.report import Report, arguments, make_report
from common.tasks import read_tasks

_QUICK = 8


def run(options: argparse.Namespace, console: Console) -> Report:
    """Serve the model, if it is a folder, and measure all variants."""
    variants = [read_variant(text) for text in options.prompt]
    limits = Limits(max_steps=options.steps, max_action_tokens=options.tokens)
    serving = (
        nullcontext(options.url.rstrip("/").removesuffix("/v1"))
        if options.url
        else served(
            options.model,
            max_context=limits.max_context,
            sequences=options.in_flight,
            threads=options.threads,
        )
    )
    figures: dict[str, float | None] = {}
    with serving as url:
        for variant in variants:
            with console.status(variant.name):
                measured = asyncio.run(_measure(variant, limits, url, options))
            figures |= {f"{variant.name}: {k}": v for k, v in measured.figures().items()}
    used = {"tasks": options.tasks.name, "n": options.n, "form": options.form}
    used |= {"steps": options.steps, "tokens": options.tokens, "temperature": limits.temperature}
    return make_report("agent", settings=used, figures=figures, ratios={})


async def _measure(
    variant: Variant, limits: Limits, url: str, options: argparse.Namespace
) -> Measured:
    tasks = read_tasks(options.tasks)[: _QUICK if options.quick else options.n]
    async with _agent(variant, limits, url, options) as runs:
        return await measure_variant(
            variant, tasks, runs, in_flight=options.in_flight, transcripts=options.transcripts
        )


def _agent(
    variant: Variant, limits: Limits, url: str, options: argparse.Namespace
) -> AbstractAsyncContextManager[Runs]:
    config = variant.config(limits, corpus=options.corpus)
    if options.form == "chat":
        return chat_agent(config, url)
    return token_agent(config, url, options.model)


def main() -> None:
    parser = arguments(__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="served by vLLM, bfloat16")
    parser.add_argument("--url", default="", help="of a server that runs already")
    parser.add_argument("--tasks", type=Path, required=True, metavar="FILE")
    parser.add_argument("--n", type=int, default=100, help="of the file's first tasks")
    parser.add_argument("--prompt", nargs="+", default=["shipped", "direct"], metavar="NAME")
    parser.add_argument("--form", choices=("chat", "tokens"), default="chat")
    parser.add_argument("--corpus", default="", metavar="INDEX", help="what search finds in")
    parser.add_argument("--in-flight", type=int, default=16, help="episodes at once")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=512, help="per action")
    parser.add_argument("--threads", type=int, default=2, help="of the server, on a CPU")
    parser.add_argument("--transcripts", type=Path, metavar="PATH", help="a line per episode")
    options = parser.parse_args()
    if not (options.url or options.model) or (options.form == "tokens" and not options.model):
        parser.error("--model FOLDER is needed where there is no --url, and for --form tokens")
    logging.getLogger("actors.agent.loop").setLevel(logging.ERROR)
    console = Console(highlight=False)
    report = run(options, console)
    report.give(console, options.json)


if __name__ == "__main__":
    main()
