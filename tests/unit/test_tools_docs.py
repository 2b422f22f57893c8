"""What docs/tools.md shows can be configured, and what can be configured is told there."""

import dataclasses
import re
import tomllib
from pathlib import Path

import pytest

from actors.tools.catalogue import make_tools
from common.config import Files, McpServer, Pages, Search, Vision, Web
from common.config_file import config_from_tables

PAGE = (Path(__file__).parents[2] / "docs" / "tools.md").read_text()
EXAMPLES = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: text.splitlines()[0])
def test_an_example_is_a_configuration_whose_tools_can_be_made(example: str) -> None:
    config = config_from_tables(tomllib.loads(example), where="docs/tools.md")

    made = make_tools(config, {"train": ""})

    assert set(made) == set(config.agent.tools) - {"submit_final_answer"}


@pytest.mark.parametrize("section", [Search, Web, Pages, Vision, Files, McpServer])
def test_every_key_of_the_sections_is_told(section: type) -> None:
    missing = [f.name for f in dataclasses.fields(section) if f.name not in PAGE]
    assert missing == []
