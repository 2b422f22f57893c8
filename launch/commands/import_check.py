"""``lzero import-check``."""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from launch.models.import_check import CheckResult

EXIT_FAULTY = 1


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe ``lzero import-check``."""
    parser = commands.add_parser(
        "import-check", help="prove that a Hugging Face folder can be trained, served and written"
    )
    parser.add_argument("folder", type=Path, help="Hugging Face model folder")
    parser.add_argument(
        "--no-vllm", action="store_true", help="leave out vLLM's own loader, which takes longest"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run it; 1 where a check failed."""
    from launch.models.import_check import check_import

    findings = check_import(arguments.folder, with_vllm=not arguments.no_vllm)
    if not arguments.json:
        return show_findings(findings)
    done = list(findings)
    rows = [{"check": f.name, "ok": f.ok, "detail": f.detail} for f in done]
    print(json.dumps(rows, indent=1))
    return _status(done)


def show_findings(findings: "Iterable[CheckResult]") -> int:
    """Print each as it comes, and return the exit status they ask for."""
    from common.visible import visible

    done = []
    for finding in findings:
        print(visible(f"{'ok  ' if finding.ok else 'FAIL'} {finding.name}: {finding.detail}"))
        done.append(finding)
    return _status(done)


def _status(findings: "Iterable[CheckResult]") -> int:
    return 0 if all(finding.ok for finding in findings) else EXIT_FAULTY
