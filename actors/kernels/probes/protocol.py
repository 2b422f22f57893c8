"""Attacks on the host over the socket that the kernel inherited: forged and oversized frames.

The host must end such a kernel; an attack that is still alive after a while escaped.
"""

import contextlib
import gc
import os
import socket
import struct
import sys
import time
from types import FrameType

from actors.kernels.probes.inside import Target
from actors.kernels.probes.probe import Family, ProbeOutcome, attack


@attack(Family.PROTOCOL, ProbeOutcome.KILLED)
def send_garbage(target: Target) -> str:
    """Writes bytes that are no frame."""
    os.write(3, b"\xff" * 4096)
    time.sleep(5)
    return "the host took it"


@attack(Family.PROTOCOL, ProbeOutcome.KILLED)
def send_a_frame_that_is_no_msgpack(target: Target) -> str:
    """Writes a frame of the right length with a wrong content."""
    os.write(3, struct.pack(">I", 5) + b"\xc1\xc1\xc1\xc1\xc1")
    time.sleep(5)
    return "the host took it"


@attack(Family.PROTOCOL, ProbeOutcome.KILLED)
def announce_a_frame_of_2_gib(target: Target) -> str:
    """Writes a length prefix that would make the host collect 2 GiB."""
    os.write(3, struct.pack(">I", 1 << 31))
    with contextlib.suppress(OSError):
        for _ in range(64):
            os.write(3, bytes(1 << 16))
    time.sleep(5)
    return "the host took it"


@attack(Family.PROTOCOL, ProbeOutcome.KILLED)
def nest_a_frame_deeply(target: Target) -> str:
    """Sends a hundred thousand nested lists, to overflow the host's stack."""
    body = b"\x91" * 100_000 + b"\xc0"
    os.write(3, struct.pack(">I", len(body)) + body)
    time.sleep(5)
    return "the host took it"


@attack(Family.PROTOCOL, ProbeOutcome.KILLED)
def send_a_list_of_unbounded_length(target: Target) -> str:
    """Sends a small frame that claims a list of four billion items."""
    body = b"\xdd\xff\xff\xff\xff" + b"\xc0" * 10
    os.write(3, struct.pack(">I", len(body)) + body)
    time.sleep(5)
    return "the host took it"


@attack(Family.PROTOCOL, ProbeOutcome.KILLED)
def forge_the_end_of_another_cell(target: Target) -> str:
    """Sends the end of a cell that never ran, as small msgpack written by hand."""
    words = (b"\xa4done", b"\xcd\x27\x0f", b"\xa2ok", b"\xa6forged", b"\x00", b"\xc0")
    body = bytes([0x90 | len(words)]) + b"".join(words)
    os.write(3, struct.pack(">I", len(body)) + body)
    time.sleep(5)
    return "the host took it"


@attack(Family.PROTOCOL, ProbeOutcome.KILLED)
def claim_to_be_ready_again(target: Target) -> str:
    """Sends the greeting of a new kernel."""
    os.write(3, struct.pack(">I", 7) + b"\x91\xa5ready")
    time.sleep(5)
    return "the host took it"


@attack(Family.PROTOCOL, ProbeOutcome.KILLED)
def send_an_extension_type(target: Target) -> str:
    """Sends a msgpack extension, which a careless reader would turn into an object."""
    body = b"\x91\xd4\x05\x00"
    os.write(3, struct.pack(">I", len(body)) + body)
    time.sleep(5)
    return "the host took it"


@attack(Family.PROTOCOL, ProbeOutcome.KILLED)
def call_tools_without_end(target: Target) -> str:
    """Forges thousands of calls of a tool that does not exist, and reads no answer."""
    body = b"\x95\xa4call\x01\xa4none\x90\x80"
    frames = (struct.pack(">I", len(body)) + body) * 1000
    with contextlib.suppress(OSError):
        for _ in range(40):
            os.write(3, frames)
    time.sleep(5)
    return "the host took 40000 calls"


@attack(Family.PROTOCOL, ProbeOutcome.KILLED)
def smuggle_descriptors(target: Target) -> str:
    """Passes a hundred open descriptors to the host together with a broken frame."""
    opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(100)]
    with socket.socket(fileno=os.dup(3)) as connection:
        socket.send_fds(connection, [b"\xff\xff\xff\xff"], opened)
    time.sleep(5)
    return "the host took them"


@attack(
    Family.PROTOCOL,
    ProbeOutcome.KILLED,
    at={"B-jupyter": (ProbeOutcome.BLOCKED, ProbeOutcome.KILLED)},
)
def answer_every_cell_twice(target: Target) -> str:
    """Makes its own end of the protocol send everything twice."""
    kinds = (type(thing) for thing in gc.get_objects())
    channel = next((kind for kind in kinds if kind.__name__ == "Channel"), None)
    if channel is not None:
        send = channel.send

        def send_twice(self: object, message: object) -> None:
            send(self, message)
            send(self, message)

        channel.send = send_twice
    return ""


@attack(
    Family.PROTOCOL,
    ProbeOutcome.KILLED,
    at={"B-jupyter": (ProbeOutcome.BLOCKED, ProbeOutcome.KILLED)},
)
def hang_up(target: Target) -> str:
    """Closes the socket to the host."""
    os.close(3)
    return ""


@attack(Family.PROTOCOL, ProbeOutcome.KILLED)
def end_a_cell_with_impossible_counts(target: Target) -> str:
    """Forges the end of its own cell, with counts that no record of an episode can hold."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code.co_name not in ("serve", "do_execute"):
        frame = frame.f_back
    if frame is None:
        return ""
    kernel = frame.f_locals.get("self")
    if kernel is None:
        huge = b"\xcf" + b"\xff" * 8
        cell = b"\xce" + struct.pack(">I", frame.f_locals["cell"])
        body = b"\x97\xa4done" + cell + b"\xa2ok\xa1x" + huge + b"\xc0" + huge
        os.write(3, struct.pack(">I", len(body)) + body)
    else:
        reply = {"status": "ok", "observation": ["x", 10**30, 10**30]}
        ident = kernel._shell_parent_ident.get()
        kernel.session.send(
            kernel.shell_stream, "execute_reply", reply, kernel.get_parent(), ident=ident
        )
    time.sleep(5)
    return "the host took it"


@attack(
    Family.PROTOCOL,
    ProbeOutcome.KILLED,
    at={"A-forked": (ProbeOutcome.BLOCKED,), "B-cold": (ProbeOutcome.BLOCKED,)},
)
def reply_with_json_too_deep_to_read(target: Target) -> str:
    """Replies to its own cell, and again and again, with lists in lists that overflow a parser."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code.co_name != "do_execute":
        frame = frame.f_back
    if frame is None:
        return ""
    kernel = frame.f_locals["self"]
    reply = b'{"observation": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"
    ident = kernel._shell_parent_ident.get()
    for _ in range(20):
        kernel.session.send(
            kernel.shell_stream, "execute_reply", reply, kernel.get_parent(), ident=ident
        )
    time.sleep(5)
    return "the host took it"
