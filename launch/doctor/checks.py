"""``lzero doctor``: tries everything that a run needs, and says what to do about the rest.

If another package hides one of ours, ``lzero`` itself may not start; then run
``python -m launch.doctor.checks`` in the folder of the checkout.
"""

import logging
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

from common.config import Config
from common.config_file import load_config
from common.errors import LZeroError, MachineError
from common.json_output import json_text
from common.visible import visible
from launch.doctor import machine as doctor_machine
from launch.doctor import packages as doctor_packages
from launch.doctor.findings import (
    Check,
    Diagnosis,
    Finding,
    Verdict,
    diagnose,
    failure,
    fine,
    warning,
)
from launch.doctor.sandbox import SandboxChecks
from launch.models.model_checks import check_model
from launch.run.config_pairs import check_pairs
from launch.run.preflight import check_agent, check_machine, check_task_files, locate_model
from launch.screen import say

_STYLES = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "bold red"}
_NAME_WIDTH = 17


class Report:
    """Shows findings as they come, below them what is being tried."""

    def __init__(self, console: Console) -> None:
        """Show on ``console``; the moving line only on a terminal."""
        self._console = console
        self._status: Status | None = None

    def __enter__(self) -> "Report":
        """Begin."""
        self._status = self._console.status("")
        self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take the moving line away."""
        if self._status is not None:
            self._status.stop()

    def begin(self, title: str) -> None:
        """Something is being tried."""
        if self._status is not None:
            self._status.update(Text(title, style="dim"))

    def tell(self, finding: Finding) -> None:
        """One finding."""
        if self._console.is_terminal:
            self._console.print(finding_row(finding))
        else:
            say(self._console, finding_text(finding))

    def close(self, diagnosis: Diagnosis) -> None:
        """The last line."""
        self._console.print()
        self._console.print(conclusion(diagnosis))


def finding_row(finding: Finding) -> Table:
    """``ok  name  what was found``, and the fix on a line of its own."""
    row = Table.grid(padding=(0, 2, 0, 0))
    row.add_column(width=4)
    row.add_column(width=_NAME_WIDTH)
    row.add_column(overflow="fold")
    style = _STYLES[finding.verdict]
    row.add_row(
        Text(finding.verdict, style=style), Text(finding.name), Text(visible(finding.found))
    )
    if finding.fix:
        row.add_row("", "", Text(visible(f"fix: {finding.fix}"), style=style))
    return row


def finding_text(finding: Finding) -> str:
    """The same for a file or a pipe, where lines may be long."""
    text = f"{finding.verdict:<4}  {finding.name:<{_NAME_WIDTH}}  {finding.found}"
    return f"{text}\n{'':6}{'':{_NAME_WIDTH}}  fix: {finding.fix}" if finding.fix else text


def conclusion(diagnosis: Diagnosis) -> Text:
    """Whether training can start."""
    took = f"{len(diagnosis.findings)} checks in {diagnosis.seconds:.0f} s"
    warnings = diagnosis.count(Verdict.WARN)
    noted = f", {warnings} warning{'s' if warnings != 1 else ''}" if warnings else ""
    if diagnosis.can_train:
        return Text(f"Training can start ({took}{noted}).", style="green")
    failures = diagnosis.count(Verdict.FAIL)
    many = "thing keeps" if failures == 1 else "things keep"
    return Text(f"{failures} {many} training from starting ({took}{noted}).", style="bold red")


def examine(config_file: Path | None, report: Report) -> Diagnosis:
    """Run every check; never raises for what it finds."""
    config, problem = _load(config_file)
    imports = doctor_packages.HeavyImports()
    sandbox = SandboxChecks(config, report.begin)
    try:
        checks = [
            *_machine_checks(config),
            Check(
                title="looking for the configuration's files",
                run=partial(_check_config, config_file, config, problem),
            ),
            *_package_checks(config),
            Check(title="looking at the kernels' runtime", run=sandbox.check_runtime),
            Check(title="starting sandboxes", run=sandbox.check_launchers),
            Check(title="importing torch and vLLM", run=partial(imports.check, config)),
        ]
        return diagnose(checks, begin=report.begin, tell=report.tell)
    finally:
        imports.close()


def _machine_checks(config: Config) -> Iterator[Check]:
    machine = doctor_machine
    for title, look in (
        ("looking at the machine", machine.check_system),
        ("looking at limits", machine.check_limits),
        ("looking at the clock", machine.check_clock),
        ("writing to the run folder", machine.check_disk),
        ("opening sockets", machine.check_sockets),
        ("looking for bubblewrap", machine.check_bubblewrap),
        ("making a control group", machine.check_control_groups),
        ("mapping user ids", machine.check_user_ids),
    ):
        yield Check(title=title, run=partial(look, config))


def _package_checks(config: Config) -> Iterator[Check]:
    packages = doctor_packages
    yield Check(title="looking for name clashes", run=partial(packages.check_names, config))
    yield Check(title="comparing versions", run=partial(packages.check_versions, config))


def _load(file: Path | None) -> tuple[Config, str]:
    """The configuration, or the default one and what is wrong with the file."""
    if file is None:
        return Config(), ""
    try:
        config = load_config(file)
        check_pairs(config)
        return config, ""
    except LZeroError as error:
        return Config(), str(error)


def _check_config(file: Path | None, config: Config, problem: str) -> Iterator[Finding]:
    if file is None:
        return
    if problem:
        yield failure("configuration", problem, f"correct {file}")
        return
    yield fine("configuration", f"{file} is well-formed, and no two keys exclude each other")
    try:
        model = locate_model(config.model.path)
        check_model(model, max_context=config.model.max_context, lora=config.model.lora)
        yield fine("model", str(model))
        yield from _check_room(config, model)
        check_agent(config)
        if not config.world.enabled:
            check_task_files(config)
    except LZeroError as error:
        yield failure("files", str(error), f"correct {file}, or put the file there")
    else:
        yield fine("tasks and tools", "all that the configuration names is there")


def _check_room(config: Config, model: Path) -> Iterator[Finding]:
    """Whether model and configuration fit the memory and the GPUs that are there."""
    try:
        close = check_machine(config, model)
    except MachineError as error:
        yield failure("room", str(error), "change what helps, or take a larger machine")
        return
    for text in close:
        yield warning("room", text, "change what helps if it fails for want of memory")
    if not close:
        yield fine("room", "policy server and learner fit this machine, as far as can be computed")


def doctor(config_file: Path | None, *, as_json: bool) -> int:
    """Examine this machine, print the report, and return the exit status: 0 if it can train."""
    console = Console(stderr=as_json, highlight=False)
    logging.getLogger("actors.kernels").setLevel(logging.ERROR)  # the report says it better
    with Report(console) as report:
        diagnosis = examine(config_file, report)
    report.close(diagnosis)
    if as_json:
        sys.stdout.write(json_text(diagnosis.as_tables(), indent=1) + "\n")
    return 0 if diagnosis.can_train else 1


if __name__ == "__main__":
    sys.exit(doctor(None, as_json="--json" in sys.argv))
