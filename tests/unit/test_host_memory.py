"""Files that were read are free memory, whatever the control groups call them."""

from pathlib import Path

import pytest

from learner.engine.host_memory import host_memory

GIB = 1 << 30


def machine(folder: Path, *, available: int, groups: str) -> Path:
    (folder / "self").mkdir(parents=True)
    lines = f"MemTotal:  {256 << 20} kB\nMemAvailable:  {available << 20} kB\nHugePages_Total: 0\n"
    (folder / "meminfo").write_text(lines)
    (folder / "self" / "cgroup").write_text(groups)
    return folder


def group(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


def test_page_cache_of_a_container_is_free_in_version_2(tmp_path: Path) -> None:
    proc = machine(tmp_path / "proc", available=100, groups="0::/\n")
    stat = f"anon {6 * GIB}\nfile {50 * GIB}\ninactive_file {40 * GIB}\nactive_file {10 * GIB}\n"
    used = {"memory.max": f"{64 * GIB}\n", "memory.current": f"{60 * GIB}\n", "memory.stat": stat}
    group(tmp_path / "cgroup", used)

    memory = host_memory(proc, tmp_path / "cgroup")

    assert (memory.total, memory.available) == (64 * GIB, 54 * GIB)


def test_page_cache_of_a_container_is_free_in_version_1(tmp_path: Path) -> None:
    proc = machine(tmp_path / "proc", available=100, groups="4:memory:/docker/a\n0::/\n")
    stat = f"inactive_file 0\ntotal_inactive_file {30 * GIB}\ntotal_active_file 0\n"
    used = {
        "memory.limit_in_bytes": f"{48 * GIB}",
        "memory.usage_in_bytes": f"{40 * GIB}",
        "memory.stat": stat,
    }
    # The path is the host's; inside of the container only its own group is mounted.
    group(tmp_path / "cgroup" / "memory", used)

    memory = host_memory(proc, tmp_path / "cgroup")

    assert (memory.total, memory.available) == (48 * GIB, 38 * GIB)


def test_the_tightest_of_all_groups_above_counts(tmp_path: Path) -> None:
    proc = machine(tmp_path / "proc", available=100, groups="0::/user/shell\n")
    for name, limit, used in (
        ("", "max", 90),
        ("user", f"{20 * GIB}", 15),
        ("user/shell", "max", 5),
    ):
        files = {"memory.max": limit, "memory.current": f"{used * GIB}", "memory.stat": "file 0\n"}
        group(tmp_path / "cgroup" / name, files)

    memory = host_memory(proc, tmp_path / "cgroup")

    assert (memory.total, memory.available) == (20 * GIB, 5 * GIB)


@pytest.mark.parametrize("limit", ["max", "9223372036854771712", "nonsense", None])
def test_without_a_limit_the_machine_counts(tmp_path: Path, limit: str | None) -> None:
    proc = machine(tmp_path / "proc", available=100, groups="4:memory:/\n0::/\n")
    if limit is not None:
        files = {"memory.limit_in_bytes": limit, "memory.usage_in_bytes": "1", "memory.max": limit}
        group(tmp_path / "cgroup" / "memory", files)
        group(tmp_path / "cgroup", files)

    memory = host_memory(proc, tmp_path / "cgroup")

    assert (memory.total, memory.available) == (256 * GIB, 100 * GIB)


def test_this_machine_can_be_asked() -> None:
    memory = host_memory()

    assert 0 < memory.available <= memory.total
