"""Forked kernels for the tests that want nothing else; a module may define its own."""

import asyncio

import pytest
import uvloop

from actors.kernels.launchers import make_launcher
from common.config import Kernel
from tests.notebook import Notebook


@pytest.fixture(scope="module")
def loop_runner():
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield runner


@pytest.fixture(scope="module")
def forked(loop_runner):
    launcher = make_launcher(Kernel(launcher="forked", grace_s=0.4))
    loop_runner.run(launcher.start())
    yield launcher
    loop_runner.run(launcher.close())


@pytest.fixture
def launch(loop_runner, forked):
    notebooks = []

    def start():
        notebooks.append(Notebook(loop_runner, loop_runner.run(forked.launch())))
        return notebooks[-1]

    yield start
    for notebook in notebooks:
        notebook.close()


@pytest.fixture
def notebook(launch):
    return launch()
