"""The shipped warm-start model sees exactly the tokens that it was trained on."""

import asyncio
from pathlib import Path

from actors.agent.loop import AgentLoop
from actors.agent.prompt import load_template
from actors.agent.token_conversation import TokenConversation
from actors.tools.catalogue import make_tools
from common.chat import ChatRenderer
from common.config import Config
from common.config_file import load_config
from common.wire.records import Task
from tests.scripted_agent import TOKENIZER, FakeKernel, FakePool, ScriptedPolicy

PRESET = Path(__file__).parents[2] / "launch" / "presets" / "quickstart.toml"
LOOK = '<think>look</think><code>print(search("Anna Keller"))</code>'
SUBMIT = '<think>done</think><code>submit_final_answer("Port Alden")</code>'
CONTEXT = (
    "<|im_start|>user\nWhere was Anna Keller born?<|im_end|>\n<|im_start|>assistant\n"
    f"{LOOK}<output>a page</output>"
)


def test_the_quickstarts_model_is_asked_in_the_tokens_that_it_was_trained_on() -> None:
    policy = ScriptedPolicy(LOOK, SUBMIT)

    asyncio.run(play(load_config(PRESET), policy))

    first, second = policy.prompts
    assert second == TOKENIZER.encode(CONTEXT)
    assert first == second[: len(first)]


def test_the_quickstart_takes_no_other_form_and_reminds_of_none() -> None:
    agent = load_config(PRESET).agent

    assert (agent.system_prompt, agent.accepted_actions, agent.format_reminders) == (
        "",
        "strict",
        0,
    )


async def play(config: Config, policy: ScriptedPolicy) -> None:
    loop = AgentLoop(
        agent=config.agent,
        kernels=FakePool(FakeKernel("a page", None, False)),  # type: ignore[arg-type]
        tools=make_tools(config, {"train": ""}),
        prompt=load_template(config.agent.system_prompt),
        cell_timeout_s=1.0,
    )
    conversation = TokenConversation(
        policy=policy,  # type: ignore[arg-type]
        renderer=ChatRenderer(TOKENIZER),
        tokenizer=TOKENIZER,
        limit=config.model.max_context,
        temperature=1.0,
    )
    task = Task(task_id="t", question="Where was Anna Keller born?", answers=("Port Alden",))
    await loop.run(task, conversation)
