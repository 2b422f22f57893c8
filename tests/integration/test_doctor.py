"""The doctor on this machine: real sandboxes, real attacks, a real import of vLLM."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from actors.kernels.limits.host_uids import has_own_uids
from actors.kernels.probes.catalogue import PROBES
from common.config import Config, Kernel
from launch.doctor.findings import Verdict
from launch.doctor.sandbox import SandboxChecks

pytestmark = pytest.mark.sandbox
REPOSITORY = Path(__file__).resolve().parents[2]
PRESET = REPOSITORY / "launch" / "presets" / "quickstart.toml"


def run_doctor(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("lzero"), "doctor", *arguments],
        env={**os.environ, **environment},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def path_without_bubblewrap(tmp_path: Path) -> str:
    """A folder with every program but one."""
    for folder in ("/usr/sbin", "/usr/bin"):
        for program in Path(folder).iterdir():
            link = tmp_path / program.name
            if program.name != "bwrap" and not link.is_symlink():
                link.symlink_to(program)
    return str(tmp_path)


def test_this_machine_can_train_and_the_report_says_what_was_tried():
    done = run_doctor(str(PRESET), "--json")

    tables = json.loads(done.stdout)
    found = {finding["name"]: finding for finding in tables["findings"]}
    failed = [f for f in tables["findings"] if f["verdict"] == Verdict.FAIL]
    assert (failed, done.returncode, tables["can_train"]) == ([], 0, True)
    assert tables["seconds"] < 60
    own = has_own_uids(Kernel(), "forked")
    quick = sum(not probe.slow and (own or not probe.keeps) for probe in PROBES)
    assert found["attacks A-forked"]["found"].startswith(f"{quick} of {quick} blocked")
    assert "runs take this one" in found["sandbox A-forked"]["found"]
    assert {"sandbox B-cold", "sandbox B-jupyter", "vllm", "torch", "gpu", "model"} <= set(found)
    assert "Training can start" in done.stderr


def test_without_bubblewrap_no_level_starts_and_nothing_can_be_chosen(
    path_without_bubblewrap, monkeypatch
):
    monkeypatch.setenv("PATH", path_without_bubblewrap)
    said: list[str] = []

    findings = list(SandboxChecks(Config(), said.append).check_launchers())

    verdicts = {finding.name: finding.verdict for finding in findings}
    assert verdicts == {
        "sandbox A-forked": Verdict.WARN,
        "sandbox B-cold": Verdict.WARN,
        "sandbox B-jupyter": Verdict.WARN,
        "kernels": Verdict.FAIL,
    }
    assert all("not installed" in finding.found for finding in findings[:3])


def test_the_launcher_of_the_configuration_is_tried_first_and_taken():
    config = Config(kernel=Kernel(launcher="cold"))

    findings = list(SandboxChecks(config, lambda title: None, PROBES[:3]).check_launchers())

    assert {finding.verdict for finding in findings} == {Verdict.OK}
    assert [f.name for f in findings if f.name.startswith("sandbox")] == [
        *("sandbox B-cold", "sandbox A-forked", "sandbox B-jupyter")
    ]
    assert ["runs take this one" in finding.found for finding in findings] == [True, *[False] * 5]


def test_a_level_below_the_minimum_is_not_taken():
    config = Config(kernel=Kernel(launcher="cold", minimum_level="A"))

    findings = list(SandboxChecks(config, lambda title: None, PROBES[:1]).check_launchers())

    assert (findings[-1].name, findings[-1].verdict) == ("kernels", Verdict.FAIL)
    assert "kernel.minimum_level = 'A'" in findings[-1].found


@pytest.mark.nightly
def test_without_bubblewrap_the_command_fails_and_says_how_to_install_it(path_without_bubblewrap):
    done = run_doctor(PATH=path_without_bubblewrap)

    assert done.returncode == 1
    assert "FAIL  bubblewrap" in done.stdout
    assert "fix: apt-get install bubblewrap" in done.stdout


@pytest.mark.nightly
def test_a_configuration_that_is_wrong_is_a_finding_and_the_rest_is_tried_all_the_same(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('[model]\npath = "/nowhere"\n')

    done = run_doctor(str(file))

    assert done.returncode == 1
    assert "model.path '/nowhere' is not a folder" in done.stdout
    assert "attacks A-forked" in done.stdout
