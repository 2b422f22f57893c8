"""``lzero import-check``."""

import argparse
import json
from pathlib import Path

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
    from common.visible import visible
    from launch.models.import_check import check_import

    findings = list(check_import(arguments.folder, with_vllm=not arguments.no_vllm))
    if arguments.json:
        rows = [{"check": f.name, "ok": f.ok, "detail": f.detail} for f in findings]
        print(json.dumps(rows, indent=1))
    else:
        for finding in findings:
            print(visible(f"{'ok  ' if finding.ok else 'FAIL'} {finding.name}: {finding.detail}"))
    return 0 if all(finding.ok for finding in findings) else EXIT_FAULTY
