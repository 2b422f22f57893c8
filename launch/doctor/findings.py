"""What ``lzero doctor`` finds: one verdict per thing, with what was found and what to do."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    """Training starts, but something is slower, weaker or older than it could be."""
    FAIL = "FAIL"
    """Training cannot start."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One line of the report.

    Attributes:
        name: the thing that was looked at.
        found: what was found, in a few words.
        fix: what to do about it; empty if it is fine.
    """

    name: str
    verdict: Verdict
    found: str
    fix: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """Something to try; ``title`` says what, while it runs."""

    title: str
    run: Callable[[], Iterable[Finding]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Diagnosis:
    """All findings; wall time in seconds."""

    findings: Sequence[Finding]
    seconds: float

    @property
    def can_train(self) -> bool:
        """Whether nothing keeps training from starting."""
        return self.count(Verdict.FAIL) == 0

    def count(self, verdict: Verdict) -> int:
        """How many findings have ``verdict``."""
        return sum(finding.verdict is verdict for finding in self.findings)

    def as_tables(self) -> dict[str, Any]:
        """The same for JSON."""
        return {
            "can_train": self.can_train,
            "seconds": round(self.seconds, 1),
            "findings": [asdict(finding) for finding in self.findings],
        }


def fine(name: str, found: str) -> Finding:
    """Nothing to do."""
    return Finding(name=name, verdict=Verdict.OK, found=found)


def warning(name: str, found: str, fix: str) -> Finding:
    """Training starts all the same."""
    return Finding(name=name, verdict=Verdict.WARN, found=found, fix=fix)


def failure(name: str, found: str, fix: str) -> Finding:
    """Training cannot start."""
    return Finding(name=name, verdict=Verdict.FAIL, found=found, fix=fix)


def diagnose(
    checks: Iterable[Check],
    *,
    begin: Callable[[str], None],
    tell: Callable[[Finding], None],
) -> Diagnosis:
    """Run the checks in order; ``begin`` is told each title, ``tell`` each finding.

    A check that itself fails is a finding of its own: the doctor never stops half-way.
    """
    started = time.monotonic()
    findings = []
    for check in checks:
        begin(check.title)
        for finding in _findings_of(check):
            findings.append(finding)
            tell(finding)
    return Diagnosis(findings=findings, seconds=time.monotonic() - started)


def _findings_of(check: Check) -> Iterable[Finding]:
    try:
        yield from check.run()
    except Exception as error:
        yield warning(
            check.title,
            f"this check itself failed: {type(error).__name__}: {error}",
            "report it as a bug of lzero doctor; the other lines hold",
        )
