"""The doctor's judgement: what is fine, what is odd, and what keeps training from starting."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from actors.kernels.probes.catalogue import PROBES
from actors.kernels.probes.probe import ProbeOutcome
from actors.kernels.probes.run import ProbeResult
from common.config import Actors, Config, Kernel, Run, Transport
from launch.doctor import machine as doctor_machine
from launch.doctor.checks import conclusion, finding_text
from launch.doctor.findings import Check, Verdict, diagnose, failure, fine, warning
from launch.doctor.package_names import OWN_PACKAGES, find_clashes
from launch.doctor.packages import check_names, check_versions, differing_pins, judge_imports
from launch.doctor.sandbox import Trial, judge

CPU = {
    "torch": {
        "version": "2.13.0+cpu",
        "cuda": None,
        "available": False,
        "devices": [],
        "seconds": 1.0,
    },
    "vllm": {"version": "0.32.0", "seconds": 5.0},
}
GPU = {
    "torch": {
        "version": "2.13.0",
        "cuda": "12.9",
        "available": True,
        "devices": [["H200", 140 << 30]],
        "seconds": 1.0,
    },
    "vllm": {"version": "0.32.0", "seconds": 5.0},
    "flash_attn": {"version": "2.8.3", "seconds": 0.5},
}


def run_checks(*checks):
    titles, told = [], []
    diagnosis = diagnose(checks, begin=titles.append, tell=told.append)
    return diagnosis, titles, told


def by_name(findings):
    return {finding.name: finding for finding in findings}


def test_findings_are_told_as_they_come_and_counted():
    diagnosis, titles, told = run_checks(
        Check(title="one", run=lambda: [fine("a", "good")]),
        Check(title="two", run=lambda: [warning("b", "odd", "mend"), failure("c", "bad", "mend")]),
    )

    assert titles == ["one", "two"]
    assert [finding.verdict for finding in told] == ["ok", "warn", "FAIL"]
    assert (diagnosis.can_train, diagnosis.count(Verdict.WARN)) == (False, 1)


def test_warnings_alone_do_not_keep_training_from_starting():
    diagnosis, _, _ = run_checks(Check(title="x", run=lambda: [warning("b", "odd", "mend")]))

    assert diagnosis.can_train
    assert "Training can start" in conclusion(diagnosis).plain
    assert "1 warning)" in conclusion(diagnosis).plain


def test_a_check_that_fails_itself_does_not_stop_the_others():
    def broken():
        yield fine("first", "good")
        raise ZeroDivisionError("oops")

    diagnosis, _, _ = run_checks(
        Check(title="broken", run=broken), Check(title="next", run=lambda: [fine("last", "good")])
    )

    assert [finding.name for finding in diagnosis.findings] == ["first", "broken", "last"]
    assert "ZeroDivisionError: oops" in diagnosis.findings[1].found


def test_the_report_as_json_says_the_same():
    diagnosis, _, _ = run_checks(Check(title="x", run=lambda: [failure("c", "bad", "mend")]))

    tables = json.loads(json.dumps(diagnosis.as_tables()))

    assert tables["can_train"] is False
    assert tables["findings"] == [{"name": "c", "verdict": "FAIL", "found": "bad", "fix": "mend"}]


def test_a_line_names_the_thing_and_the_fix():
    text = finding_text(failure("bubblewrap", "bwrap is not on the PATH", "apt-get install it"))

    assert text.splitlines()[0].split(None, 2)[:2] == ["FAIL", "bubblewrap"]
    assert text.splitlines()[1].strip() == "fix: apt-get install it"


def test_a_missing_vllm_keeps_training_from_starting():
    found = CPU | {"vllm": {"error": "ImportError: no module", "seconds": 0.1}}

    assert by_name(judge_imports(found))["vllm"].verdict is Verdict.FAIL


def test_flash_attention_is_asked_for_only_with_a_gpu():
    broken = GPU | {"flash_attn": {"error": "ImportError: no module", "seconds": 0.1}}

    assert "flash-attn" not in by_name(judge_imports(CPU))
    assert by_name(judge_imports(GPU))["flash-attn"].verdict is Verdict.OK
    assert by_name(judge_imports(broken))["flash-attn"].verdict is not Verdict.OK


def test_no_gpu_is_fine_and_a_gpu_is_named_with_its_memory():
    assert by_name(judge_imports(CPU))["gpu"].found.startswith("none")
    assert "H200 140 GiB" in by_name(judge_imports(GPU))["gpu"].found


def attack_results(*outcomes):
    probe = PROBES[0]
    return tuple(
        ProbeResult(probe=probe, level="A-forked", outcome=outcome, reason="why", seconds=0.1)
        for outcome in outcomes
    )


def test_an_escape_fails_only_where_runs_would_take_that_level():
    trial = Trial(name="forked", results=attack_results(ProbeOutcome.BLOCKED, ProbeOutcome.ESCAPED))

    taken = by_name(judge(trial, chosen=True))["attacks A-forked"]
    spare = by_name(judge(trial, chosen=False))["attacks A-forked"]

    assert (taken.verdict, spare.verdict) == (Verdict.FAIL, Verdict.WARN)
    assert f"1 of 2 blocked in 0.0 s; {PROBES[0].name}: ESCAPED (why)" in taken.found


def test_attacks_that_ran_out_of_time_fail_with_the_advice_to_wait_for_a_quiet_machine():
    late = attack_results(ProbeOutcome.BLOCKED, ProbeOutcome.TIMED_OUT)
    worse = attack_results(ProbeOutcome.TIMED_OUT, ProbeOutcome.ESCAPED)

    busy = by_name(judge(Trial(name="forked", results=late), chosen=True))["attacks A-forked"]
    open_ = by_name(judge(Trial(name="forked", results=worse), chosen=True))["attacks A-forked"]

    assert (busy.verdict, open_.verdict) == (Verdict.FAIL, Verdict.FAIL)
    assert "busy; run `lzero doctor` again when it is quiet" in busy.fix
    assert "do not run a model's code here" in open_.fix


def test_a_launcher_that_cannot_start_says_why():
    findings = list(judge(Trial(name="cold", problem="no bwrap"), chosen=False))

    assert [(finding.name, finding.verdict) for finding in findings] == [
        ("sandbox B-cold", Verdict.WARN)
    ]
    assert "no bwrap" in findings[0].found


def test_versions_are_compared_with_the_pins():
    pins = [
        "# a comment",
        f"pytest=={metadata.version('pytest')}",
        "msgpack==0.0.1",
        "no-such-package==1.0 ; python_version > '3'",
        "",
    ]

    assert differing_pins(pins) == [
        f"msgpack {metadata.version('msgpack')} (pinned 0.0.1)",
        "no-such-package missing (pinned 1.0)",
    ]


def test_requirements_of_this_environment_are_met():
    assert "requirements" not in by_name(check_versions(Config()))


def test_a_stray_folder_that_hides_a_package_is_found(tmp_path: Path):
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "__init__.py").touch()

    clashes = find_clashes([str(tmp_path), *sys.path])

    assert [(clash.name, clash.place) for clash in clashes] == [("common", f"{tmp_path}/common")]


def test_a_stray_module_in_the_working_folder_is_found(tmp_path: Path, monkeypatch):
    (tmp_path / "launch.py").touch()
    monkeypatch.chdir(tmp_path)

    found = by_name(check_names(Config()))["package names"]

    assert found.verdict is Verdict.FAIL
    assert f"{tmp_path}/launch.py" in found.found


def test_packages_that_are_nowhere_are_found():
    assert [clash.name for clash in find_clashes([])] == list(OWN_PACKAGES)


def test_the_command_refuses_to_run_with_a_package_of_others(tmp_path: Path):
    (tmp_path / "common.py").touch()

    done = subprocess.run(
        [Path(sys.executable).with_name("lzero"), "doctor"],
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode != 0
    assert done.stderr.startswith(f"lzero: package 'common' is {tmp_path}/common.py, not ")


def test_a_run_folder_that_takes_no_file_fails():
    config = Config(run=Run(folder="/proc/runs"))

    found = by_name(doctor_machine.check_disk(config))["run folder"]

    assert found.verdict is Verdict.FAIL
    assert "/proc takes no file" in found.found


def test_a_run_folder_below_a_file_fails(tmp_path: Path):
    (tmp_path / "file").touch()
    config = Config(run=Run(folder=str(tmp_path / "file" / "runs")))

    assert by_name(doctor_machine.check_disk(config))["run folder"].verdict is Verdict.FAIL


def test_looking_at_the_run_folder_leaves_nothing(tmp_path: Path):
    list(doctor_machine.check_disk(Config(run=Run(folder=str(tmp_path / "runs")))))

    assert list(tmp_path.iterdir()) == []


def test_an_address_in_use_fails_and_is_named():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        config = Config(transport=Transport(listen=address))

        found = by_name(doctor_machine.check_sockets(config))["sockets"]

    assert found.verdict is Verdict.FAIL
    assert f"cannot listen at {address}: Address already in use" in found.found
    assert "transport.listen" in found.fix


@pytest.mark.parametrize("listen", ["", "127.0.0.1:0"])
def test_a_coordinator_that_can_listen_is_found_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listen: str
):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr("launch.starters.private._LONGEST", 200)
    config = Config(transport=Transport(listen=listen))

    found = by_name(doctor_machine.check_sockets(config))["sockets"]

    assert found.verdict is Verdict.OK
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("works", [True, False])
def test_ports_that_others_reach_are_a_warning(monkeypatch: pytest.MonkeyPatch, works: bool):
    monkeypatch.setattr(doctor_machine, "own_network_works", lambda: works)

    found = by_name(doctor_machine.check_sockets(Config()))["own network"]

    assert found.verdict is (Verdict.OK if works else Verdict.WARN)
    assert works or "user namespaces" in found.fix


def test_more_kernels_than_files_may_be_open_is_a_warning():
    config = dataclasses.replace(Config(), actors=Actors(episodes=8192, processes=4096))

    found = by_name(doctor_machine.check_limits(config))

    assert found["open files"].verdict is Verdict.WARN
    assert "actors.episodes" in found["open files"].fix


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives user ids away")
def test_kernels_that_would_share_a_user_id_are_a_warning_with_the_reason_and_the_fix():
    taken = by_name(doctor_machine.check_user_ids(Config(kernel=Kernel(first_uid=1))))["user ids"]
    few = by_name(doctor_machine.check_user_ids(Config(kernel=Kernel(uids=50))))["user ids"]
    good = by_name(doctor_machine.check_user_ids(Config()))["user ids"]

    assert taken.verdict is few.verdict is Verdict.WARN
    assert "kernels share one" in taken.found
    assert "meet 1-1 of" in taken.found
    assert taken.fix == "set kernel.first_uid to ids that nobody has"
    assert few.fix == "raise kernel.uids"
    assert (good.verdict, good.found) == (
        Verdict.OK,
        "one for each kernel, of 1900000000-1900004093",
    )


def test_a_bubblewrap_that_is_missing_fails_with_the_command_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))

    found = by_name(doctor_machine.check_bubblewrap(Config()))["bubblewrap"]

    assert (found.verdict, found.fix) == (Verdict.FAIL, "apt-get install bubblewrap")


@pytest.mark.parametrize(
    ("text", "version"), [("bubblewrap 0.8.0", (0, 8)), ("6.18.44-fc", (6, 18)), ("", (0, 0))]
)
def test_versions_are_read_from_text(text, version):
    assert doctor_machine.version_in(text) == version
