"""A kernel with blocking methods, and tools for it."""

import asyncio
import textwrap

from actors.kernels.interface import CellStatus
from actors.kernels.tool_specs import ToolParameter, ToolSpec


def anything(name):
    """A tool that takes two values and two keywords."""
    return ToolSpec(
        name=name,
        doc="Says what it was given.",
        parameters=(
            ToolParameter(name="first", required=False),
            ToolParameter(name="second", required=False),
            ToolParameter(name="k", required=False, keyword_only=True),
        ),
    )


class Notebook:
    """A kernel with blocking methods."""

    def __init__(self, runner, kernel):
        self.runner, self.kernel = runner, kernel

    def run(self, code, timeout_s=10.0):
        return self.runner.run(self.kernel.execute(textwrap.dedent(code), timeout_s=timeout_s))

    def execute(self, code, output_bytes=None):
        work = self.kernel.execute(textwrap.dedent(code), timeout_s=10, output_bytes=output_bytes)
        return self.runner.run(work)

    def put_file(self, name, data):
        self.runner.run(self.kernel.put_file(name, data))

    def value(self, code):
        result = self.run(code)
        assert result.status is CellStatus.OK, result.output
        return result.output.strip()

    def bind(self, names, handler):
        async def bind():
            specs = [anything(name) if isinstance(name, str) else name for name in names]
            self.kernel.bind_tools(specs, handler)

        self.runner.run(bind())

    def close(self):
        self.runner.run(self.kernel.close())


async def echo(name, arguments, keywords):
    if name == "fail":
        raise {"key": KeyError, "value": ValueError, "time": TimeoutError, "os": OSError}[
            arguments[0]
        ]("told you")
    if name == "slow":
        await asyncio.sleep(0.05)
    return [name, list(arguments), keywords]
