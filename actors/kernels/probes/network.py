"""Attacks over the network, and over the socket families that network namespaces do not isolate."""

import contextlib
import fcntl
import socket
import struct
import time

from actors.kernels.probes.inside import Target, system_call
from actors.kernels.probes.probe import Family, attack


@attack(Family.NETWORK, control=True)
def reach_a_server_on_the_hosts_localhost(target: Target) -> str:
    """Connects to a listening TCP port of the host on 127.0.0.1."""
    with socket.create_connection(("127.0.0.1", target.tcp_port), timeout=1):
        return "connected"


@attack(Family.NETWORK)
def reach_a_server_on_the_hosts_ipv6_localhost(target: Target) -> str:
    """Connects to a listening TCP port of the host on ::1."""
    with socket.create_connection(("::1", target.tcp6_port), timeout=1):
        return "connected"


@attack(Family.NETWORK, control=True)
def reach_a_datagram_server_of_the_host(target: Target) -> str:
    """Sends datagrams to a port of the host; a port that nobody has would refuse the second."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        handle.connect(("127.0.0.1", target.udp_port))
        for _ in range(3):
            handle.send(b"hello")
            time.sleep(0.01)
        return "sent"


@attack(Family.NETWORK)
def reach_the_metadata_service(target: Target) -> str:
    """Connects to the address where clouds hand out credentials."""
    with socket.create_connection(("169.254.169.254", 80), timeout=1):
        return "connected"


@attack(Family.NETWORK)
def reach_the_internet(target: Target) -> str:
    """Connects to public name servers by number, over IPv4 and IPv6."""
    for address in ("1.1.1.1", "8.8.8.8", "2606:4700:4700::1111"):
        with contextlib.suppress(OSError):
            socket.create_connection((address, 53), timeout=0.5).close()
            return address
    return ""


@attack(Family.NETWORK)
def resolve_a_name(target: Target) -> str:
    """Asks for the address of a public name."""
    return str(socket.getaddrinfo("example.com", 80))


@attack(Family.NETWORK, control=True)
def reach_an_abstract_socket_of_the_host(target: Target) -> str:
    """Connects to an abstract unix socket, which has no file to hide."""
    with socket.socket(socket.AF_UNIX) as handle:
        handle.settimeout(1)
        handle.connect("\0" + target.abstract)
        return "connected"


@attack(Family.NETWORK, control=True)
def reach_unix_sockets_of_the_host(target: Target) -> str:
    """Connects to a unix socket of the host, and to those of Docker and its like."""
    daemons = ("/run/docker.sock", "/var/run/docker.sock", "/run/containerd/containerd.sock")
    for path in (
        target.socket_path,
        *daemons,
        "/run/podman/podman.sock",
        "/run/dbus/system_bus_socket",
    ):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as handle:
            handle.settimeout(1)
            handle.connect(path)
            return path
    return ""


@attack(Family.NETWORK, control=True)
def talk_to_the_hypervisor(target: Target) -> str:
    """Opens a vsock, which network namespaces do not isolate."""
    with socket.socket(40, socket.SOCK_STREAM) as handle:
        handle.settimeout(0.2)
        with contextlib.suppress(OSError):
            handle.connect((2, 1024))
        return "a vsock"


@attack(Family.NETWORK, control=True)
def open_raw_and_packet_sockets(target: Target) -> str:
    """Opens raw IP, ICMP and packet sockets."""
    opened = []
    for family, kind, protocol in ((2, 3, 1), (2, 3, 255), (10, 3, 58), (17, 3, 0), (17, 2, 0)):
        with contextlib.suppress(OSError):
            socket.socket(family, kind, protocol).close()
            opened.append(f"family {family} type {kind}")
    return ", ".join(opened)


@attack(Family.NETWORK)
def open_unusual_socket_families(target: Target) -> str:
    """Opens every family but unix, internet and netlink, plainly and with high bits set."""
    opened = []
    for family in [*range(3, 10), *range(11, 16), *range(17, 46)]:
        for word in (family, family | 1 << 32):
            for kind in (1, 2, 3, 5):
                with contextlib.suppress(OSError):
                    system_call("socket", word, kind, 0)
                    opened.append(str(family))
    return ", ".join(sorted(set(opened)))


@attack(Family.NETWORK, control=True)
def see_network_interfaces_of_the_host(target: Target) -> str:
    """Lists interfaces other than one's own loopback, by /proc and by system calls."""
    with open("/proc/net/dev") as file:
        names = [line.partition(":")[0].strip() for line in file if ":" in line]
    with contextlib.suppress(OSError):
        names += [name for _, name in socket.if_nameindex()]
    return ", ".join(name for name in names if name != "lo")


@attack(Family.NETWORK)
def change_the_network_configuration(target: Target) -> str:
    """Gives the loopback a further address, and takes it down."""
    done = []
    address = struct.pack("16sHH4s8x", b"lo", 2, 0, bytes([10, 1, 2, 3]))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        for request, argument in ((0x8916, address), (0x8914, struct.pack("16sh14x", b"lo", 0))):
            with contextlib.suppress(OSError):
                fcntl.ioctl(handle, request, argument)
                done.append(hex(request))
    return ", ".join(done)
