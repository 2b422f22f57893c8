"""What goes into the sandbox: its imports, its system call filter and its tracebacks."""

import ast
import struct
import sys
from pathlib import Path

import pytest

from actors.kernels.sandboxed import seccomp
from actors.kernels.sandboxed.capture import Capture, CapturedStream
from actors.kernels.sandboxed.tracebacks import format_traceback

SOURCES = Path(seccomp.__file__).parent
ALLOWED, REFUSED, NO_FAMILY, MISSING = 0x7FFF0000, 0x50001, 0x50061, 0x50026
IGNORED, CANNOT, UNSUPPORTED = 0x50000, 0x50016, 0x5005F
RUNTIME = {"IPython", "ipykernel", "msgpack", "traitlets"}
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def imported_modules(source):
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("file", sorted(SOURCES.glob("*.py")), ids=lambda file: file.name)
def test_sandboxed_code_imports_nothing_of_the_rest(file):
    own = "actors.kernels.sandboxed"
    foreign = {
        name
        for name in imported_modules(file.read_text())
        if not name.startswith(own)
        and name.partition(".")[0] not in {*sys.stdlib_module_names, *RUNTIME}
    }

    assert foreign == set()


def decide(program, machine, number, *arguments):
    """Run a seccomp program on one system call, like the kernel does."""
    data = struct.pack("IIQ6Q", number, ARCHITECTURES[machine], 0, *(arguments + (0,) * 6)[:6])
    position = accumulator = 0
    while True:
        code, jump_true, jump_false, operand = struct.unpack_from("HBBI", program, 8 * position)
        position += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("I", data, operand)
        elif code == 0x06:
            return operand
        elif code == 0x05:
            position += operand
        else:
            holds = {
                0x15: accumulator == operand,
                0x35: accumulator >= operand,
                0x45: bool(accumulator & operand),
            }[code]
            position += jump_true if holds else jump_false


@pytest.mark.parametrize(
    ("machine", "number", "arguments", "verdict"),
    [
        ("x86_64", 0, (), ALLOWED),  # read
        ("x86_64", 101, (), REFUSED),  # ptrace
        ("x86_64", 165, (), REFUSED),  # mount
        ("x86_64", 319, (), REFUSED),  # memfd_create
        ("x86_64", 450, (), REFUSED),  # set_mempolicy_home_node, the last of the list
        ("x86_64", 56, (17,), ALLOWED),  # clone like fork
        ("x86_64", 56, (0x10000011,), REFUSED),  # clone into a user namespace
        ("x86_64", 435, (), MISSING),  # clone3
        ("x86_64", 41, (1, 1), ALLOWED),  # unix socket
        ("x86_64", 41, (2, 1), ALLOWED),  # internet socket
        ("x86_64", 41, (16, 3), NO_FAMILY),  # netlink
        ("x86_64", 41, (40, 1), NO_FAMILY),  # vsock
        ("x86_64", 53, (40, 1), NO_FAMILY),  # socketpair
        ("x86_64", 16, (0, 0x5412), REFUSED),  # TIOCSTI
        ("x86_64", 16, (0, 0x541C), REFUSED),  # TIOCLINUX
        ("x86_64", 16, (0, 0x5401), ALLOWED),  # TCGETS
        ("x86_64", 9, (0, 4096, 3, 0x22), ALLOWED),  # mmap, private and anonymous
        ("x86_64", 9, (0, 4096, 3, 0x01, 5), ALLOWED),  # a shared file
        ("x86_64", 9, (0, 4096, 3, 0x21), REFUSED),  # shared without a file
        ("x86_64", 9, (0, 4096, 3, 0x23), REFUSED),  # the same by MAP_SHARED_VALIDATE
        ("x86_64", 9, (0, 4096, 3, 0x40022), REFUSED),  # huge pages
        ("x86_64", 72, (3, 6), ALLOWED),  # fcntl: F_SETLK
        ("x86_64", 72, (3, 1024), REFUSED),  # F_SETLEASE
        ("x86_64", 72, (3, 1026), REFUSED),  # F_NOTIFY
        ("x86_64", 253, (), REFUSED),  # inotify_init
        ("x86_64", 294, (), REFUSED),  # inotify_init1
        ("x86_64", 206, (), REFUSED),  # io_setup
        ("x86_64", 278, (), REFUSED),  # vmsplice
        ("x86_64", 54, (3, 1, 7), IGNORED),  # setsockopt: SO_SNDBUF
        ("x86_64", 54, (3, 1, 8), IGNORED),  # SO_RCVBUF
        ("x86_64", 54, (3, 1, 26), REFUSED),  # SO_ATTACH_FILTER
        ("x86_64", 54, (3, 1, 51), REFUSED),  # SO_ATTACH_REUSEPORT_CBPF
        ("x86_64", 54, (3, 1, 2), ALLOWED),  # SO_REUSEADDR
        ("x86_64", 54, (3, 6, 26), ALLOWED),  # an option of TCP with the same number
        ("x86_64", 157, (22, 2), CANNOT),  # prctl: PR_SET_SECCOMP
        ("x86_64", 157, (78, 1, 1 << 22), CANNOT),  # PR_FUTEX_HASH
        ("x86_64", 157, (0x53564D41,), CANNOT),  # PR_SET_VMA
        ("x86_64", 157, (1, 9), ALLOWED),  # PR_SET_PDEATHSIG, the first of the list
        ("x86_64", 157, (0x41555856,), ALLOWED),  # PR_GET_AUXV, the last of the list
        ("x86_64", 444, (), REFUSED),  # landlock_create_ruleset
        ("x86_64", 188, (), UNSUPPORTED),  # setxattr
        ("x86_64", 190, (), UNSUPPORTED),  # fsetxattr
        ("x86_64", 191, (), ALLOWED),  # getxattr
        ("x86_64", 463, (), UNSUPPORTED),  # setxattrat
        ("x86_64", 327, (3, 0, 1, 0, 0, 0), ALLOWED),  # preadv2
        ("x86_64", 327, (3, 0, 1, 0, 0, 8), UNSUPPORTED),  # with RWF_NOWAIT
        ("x86_64", 328, (3, 0, 1, 0, 0, 16), UNSUPPORTED),  # pwritev2 with RWF_APPEND
        ("x86_64", 221, (3, 0, 0, 4), IGNORED),  # fadvise64
        ("x86_64", 157, (15,), ALLOWED),  # PR_SET_NAME
        ("x86_64", 317, (), REFUSED),  # seccomp
        ("x86_64", 275, (), CANNOT),  # splice
        ("x86_64", 40, (), CANNOT),  # sendfile
        ("x86_64", 0x40000000, (), MISSING),  # x32
        ("aarch64", 63, (), ALLOWED),  # read
        ("aarch64", 117, (), REFUSED),  # ptrace
        ("aarch64", 220, (0x10000011,), REFUSED),  # clone
        ("aarch64", 198, (40, 1), NO_FAMILY),  # socket
        ("aarch64", 29, (0, 0x5412), REFUSED),  # ioctl
        ("aarch64", 222, (0, 4096, 3, 0x21), REFUSED),  # mmap
        ("aarch64", 222, (0, 4096, 3, 0x22), ALLOWED),  # mmap
        ("aarch64", 25, (3, 1026), REFUSED),  # fcntl
        ("aarch64", 26, (), REFUSED),  # inotify_init1
        ("aarch64", 208, (3, 1, 7), IGNORED),  # setsockopt
        ("aarch64", 71, (), CANNOT),  # sendfile
        ("aarch64", 167, (22, 2), CANNOT),  # prctl
        ("aarch64", 5, (), UNSUPPORTED),  # setxattr
        ("aarch64", 286, (3, 0, 1, 0, 0, 8), UNSUPPORTED),  # preadv2
        ("aarch64", 223, (3, 0, 0, 4), IGNORED),  # fadvise64
    ],
)
def test_the_filter_decides_as_documented(machine, number, arguments, verdict):
    program = seccomp.deny_list(machine=machine)

    assert decide(program, machine, number, *arguments) == verdict


def test_netlink_is_allowed_on_request_only():
    assert decide(seccomp.deny_list(netlink=True, machine="x86_64"), "x86_64", 41, 16) == ALLOWED


def test_another_architecture_is_killed_or_refused():
    assert decide(seccomp.deny_list(machine="x86_64"), "aarch64", 0) == 0x80000000
    with pytest.raises(NotImplementedError, match="riscv64"):
        seccomp.deny_list(machine="riscv64")


def test_outputs_are_counted_as_a_notebook_shows_them():
    capture = Capture()
    capture.begin(100)
    out, err = CapturedStream(capture, 1), CapturedStream(capture, 2)

    print("one", "two", file=out)
    print("three", file=out)
    print("four", file=err)
    print(end="", file=out)
    capture.write("a value")
    capture.write("another")
    print("five", file=out)

    assert capture.finish()[2] == 5


def test_a_traceback_names_cells_and_causes():
    code = compile("def f():\n    {}['k']\ntry:\n    f()\nexcept KeyError as e:\n"
                   "    raise ValueError('bad') from e\n", "cell-7", "exec")  # fmt: skip
    with pytest.raises(ValueError, match="bad") as caught:
        exec(code, {})
    error = caught.value

    text = format_traceback(error, error.__traceback__, {"cell-7": "Cell In[7]"}.get)

    assert text.index("KeyError: 'k'") < text.index("ValueError: bad")
    assert "  Cell In[7], line 2 in f\n" in text
