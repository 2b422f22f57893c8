"""Attacks on what the actor knows: its environment, memory and processes, by way of /proc."""

import contextlib
import os
import re

from actors.kernels.probes.inside import Target, system_call
from actors.kernels.probes.probe import Family, attack


@attack(Family.SECRETS, control=True)
def find_a_secret_in_any_environment(target: Target) -> str:
    """Searches environment and command line of every process in sight, and one's own."""
    secret = re.compile("sk-bai[t]-[0-9a-f]+")
    text = repr(dict(os.environ))
    for pid in [name for name in os.listdir("/proc") if name.isdigit()]:
        for part in ("environ", "cmdline"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/{part}", "rb") as file:
                text += file.read().decode("utf-8", "replace")
    return ", ".join(secret.findall(text))


@attack(Family.SECRETS, control=True)
def find_a_secret_in_memory(target: Target) -> str:
    """Searches its own memory, which was forked from another process, and that of pid 1."""
    secret = re.compile(b"sk-bai[t]-[0-9a-f]+")
    for pid in ["self", "1"] if os.getpid() < 100 else ["self"]:
        with (
            contextlib.suppress(OSError),
            open(f"/proc/{pid}/maps") as maps,
            open(f"/proc/{pid}/mem", "rb", 0) as memory,
        ):
            for line in maps:
                low, high = (int(end, 16) for end in line.split()[0].split("-"))
                if line.split()[1][0] != "r" or high - low > 64 << 20 or "[v" in line:
                    continue
                with contextlib.suppress(OSError, OverflowError):
                    memory.seek(low)
                    if found := secret.search(memory.read(high - low)):
                        return found[0].decode()
    return ""


@attack(Family.SECRETS, control=True)
def see_processes_of_the_host(target: Target) -> str:
    """Counts the processes in sight, and looks for one of the host by its number."""
    pids = [name for name in os.listdir("/proc") if name.isdigit()]
    if os.path.exists(f"/proc/{target.pid}"):
        return f"process {target.pid}"
    return f"{len(pids)} processes" if len(pids) > target.processes else ""


@attack(Family.SECRETS, control=True)
def open_kernel_memory(target: Target) -> str:
    """Opens /proc/kcore, and looks for addresses in /proc/kallsyms."""
    with contextlib.suppress(OSError):
        os.close(os.open("/proc/kcore", os.O_RDONLY))
        return "/proc/kcore"
    with open("/proc/kallsyms") as symbols:
        address = symbols.readline().split()[0]
    return address if int(address, 16) else ""


@attack(Family.SECRETS, control=True)
def read_figures_of_the_machine(target: Target) -> str:
    """Reads what /proc tells of the machine: load, memory, up time, disks, boot id and the like."""
    found = []
    for name in (
        *("loadavg", "uptime", "meminfo", "stat", "vmstat", "diskstats", "interrupts", "cmdline"),
        *("cpuinfo", "version", "partitions", "sys/fs/file-nr", "sys/kernel/random/boot_id"),
        *("sys/kernel/pty/nr", "pressure/cpu", "locks", "key-users", "swaps", "softirqs"),
    ):
        with contextlib.suppress(OSError), open(f"/proc/{name}") as file:
            found += [name] * bool(file.read(1))
    return ", ".join(found)


@attack(Family.SECRETS)
def look_into_pid_1(target: Target) -> str:
    """Reads and writes the memory, files and folders of its own pid 1."""
    found = []
    for name in ("mem", "maps", "environ", "auxv", "syscall"):
        with contextlib.suppress(OSError), open(f"/proc/1/{name}", "rb") as file:
            file.read(1)
            found.append(name)
    for name in ("cwd", "root", "fd", "map_files", "fdinfo"):
        with contextlib.suppress(OSError):
            os.listdir(f"/proc/1/{name}")
            found.append(name)
    return ", ".join(found)


@attack(Family.SECRETS, control=True)
def press_the_magic_key(target: Target) -> str:
    """Opens the trigger of the kernel's emergency commands for writing."""
    os.close(os.open("/proc/sysrq-trigger", os.O_WRONLY))
    return "/proc/sysrq-trigger"


@attack(Family.SECRETS)
def change_settings_of_the_machine(target: Target) -> str:
    """Writes to everything below /proc/sys, but for its own namespaces', what it holds already."""
    own = (
        *("/proc/sys/net/", "/proc/sys/user/", "/proc/sys/fs/mqueue/", "/proc/sys/kernel/msg"),
        *("/proc/sys/kernel/shm", "/proc/sys/kernel/sem", "/proc/sys/kernel/auto_msgmni"),
        *("/proc/sys/kernel/pid_max", "/proc/sys/kernel/ns_last_pid"),
    )
    written = []
    for folder, _, names in os.walk("/proc/sys"):
        for path in [f"{folder}/{name}" for name in names]:
            if path.startswith(own):
                continue
            with contextlib.suppress(OSError), open(path, "r+") as file:
                text = file.read()
                file.seek(0)
                file.write(text)
                file.flush()
                written.append(path)
    return ", ".join(written[:5])


@attack(Family.SECRETS)
def change_settings_of_its_namespaces(target: Target) -> str:
    """Changes settings that may be its own; the host looks whether they are also its."""
    for path in target.settings:
        with contextlib.suppress(OSError, ValueError), open(path, "r+") as file:
            number = int(file.read()) - 1
            file.seek(0)
            file.write(str(number))
    return ""


@attack(Family.SECRETS, control=True)
def look_into_sys(target: Target) -> str:
    """Lists /sys and looks for control groups."""
    return ", ".join(os.listdir("/sys")[:5])


@attack(Family.SECRETS, control=True)
def read_the_log_of_the_kernel(target: Target) -> str:
    """Reads dmesg by the system call and by /dev/kmsg."""
    with contextlib.suppress(OSError):
        os.close(os.open("/dev/kmsg", os.O_RDONLY))
        return "/dev/kmsg"
    return f"{system_call('syslog', 10, None, 0)} bytes"


@attack(Family.SECRETS, control=True)
def escape_the_oom_killer(target: Target) -> str:
    """Asks the kernel to end anybody else when memory runs out."""
    with open("/proc/self/oom_score_adj") as file:
        found = [text for text in [file.read().strip()] if text != "1000"]
    for text in ("-900", "0", "999"):
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write(text)
            file.flush()
            found.append(text)
    return ", ".join(found)


@attack(Family.SECRETS, control=True)
def ask_what_the_machine_has_read(target: Target) -> str:
    """Reads a file only if somebody has read it before, which tells what runs outside."""
    handle = os.open("/usr/bin/env", os.O_RDONLY)
    try:
        os.pread(handle, 4096, 0)
        return f"{os.preadv(handle, [bytearray(4096)], 0, os.RWF_NOWAIT)} bytes were in memory"
    finally:
        os.close(handle)
