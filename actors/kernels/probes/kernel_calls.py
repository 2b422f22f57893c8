"""Attacks on interfaces of the Linux kernel that namespaces do not isolate."""

import contextlib
import ctypes
import fcntl
import os
import struct

from actors.kernels.probes.inside import Target, not_refused, system_call
from actors.kernels.probes.probe import Family, attack


@attack(Family.KERNEL, control=True)
def use_io_uring(target: Target) -> str:
    """Sets up an io_uring, which goes around system call filters."""
    parameters = ctypes.create_string_buffer(120)
    return f"descriptor {system_call('io_uring_setup', 4, parameters)}"


@attack(Family.KERNEL, control=True)
def load_bpf(target: Target) -> str:
    """Makes a BPF map."""
    attributes = struct.pack("4I", 1, 4, 4, 1) + bytes(112)
    return f"descriptor {system_call('bpf', 0, attributes, 48)}"


@attack(Family.KERNEL, control=True)
def watch_by_perf(target: Target) -> str:
    """Opens a performance event."""
    attributes = struct.pack("IIQ", 1, 112, 0) + bytes(96)
    return f"descriptor {system_call('perf_event_open', attributes, 0, -1, -1, 0)}"


@attack(Family.KERNEL, control=True)
def handle_page_faults(target: Target) -> str:
    """Opens a userfaultfd, the helper of many kernel exploits."""
    with contextlib.suppress(OSError):
        os.close(os.open("/dev/userfaultfd", os.O_RDWR))
        return "/dev/userfaultfd"
    return f"descriptor {system_call('userfaultfd', 0)}"


@attack(Family.KERNEL, control=True)
def watch_files_of_the_host(target: Target) -> str:
    """Asks to be told what anybody does in /usr/bin, by inotify, dnotify and leases."""
    watching = []
    for name in ("inotify_init", "inotify_init1"):
        with contextlib.suppress(OSError):
            handle = system_call(name, 0)
            watching.append(
                f"{name} {system_call('inotify_add_watch', handle, b'/usr/bin', 0xFFF)}"
            )
    folder, file = os.open("/usr/bin", os.O_RDONLY), os.open("/usr/bin/env", os.O_RDONLY)
    for handle, command, argument in ((folder, 1026, 0x3F), (file, 1024, 0)):
        with contextlib.suppress(OSError):
            fcntl.fcntl(handle, command, argument)
            watching.append(f"fcntl {command}")
        os.close(handle)
    return ", ".join(watching)


@attack(Family.KERNEL, control=True)
def take_the_machines_asynchronous_io(target: Target) -> str:
    """Asks for places in a queue whose length is fixed for the whole machine."""
    return f"{system_call('io_setup', 16, bytes(8))} for 16 requests"


@attack(Family.KERNEL)
def load_code_into_the_kernel(target: Target) -> str:
    """Loads and unloads modules and kernels."""
    return not_refused(
        ("init_module", (None, 0, None)),
        ("finit_module", (-1, b"", 0)),
        ("delete_module", (b"no-such-module", 0x800)),
        ("kexec_load", (0, -1, None, 0)),
        ("kexec_file_load", (-1, -1, 0, None, 0)),
    )


@attack(Family.KERNEL)
def administer_the_machine(target: Target) -> str:
    """Reboots, swaps, keeps accounts, hangs up terminals and watches all files."""
    return not_refused(
        ("reboot", (0, 0, 0, None)),
        ("swapon", (b"/nowhere", 0)),
        ("swapoff", (b"/nowhere",)),
        ("acct", (b"/nowhere",)),
        ("vhangup", ()),
        ("fanotify_init", (0, 0)),
    )


@attack(Family.KERNEL)
def set_clock_and_names(target: Target) -> str:
    """Sets the clock, the host name and the domain name."""
    return not_refused(
        ("clock_settime", (99, None)),
        ("settimeofday", (None, None)),
        ("clock_adjtime", (0, None)),
        ("sethostname", (b"x", 1)),
        ("setdomainname", (b"x", 1)),
    )


@attack(Family.KERNEL)
def touch_the_hardware(target: Target) -> str:
    """Asks for I/O ports and changes its segment table."""
    return not_refused(("iopl", (3,)), ("ioperm", (0x70, 1, 1)), ("modify_ldt", (1, bytes(16), 16)))
