# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""The kernel's NFS server as the network sees it: its ports and sockets, and
ways around the network."""

from collections.abc import Iterable
import ipaddress
import pathlib
import select
import socket
import struct
import time

PORTLIST = pathlib.Path("/proc/fs/nfsd/portlist")
LOCALIO = pathlib.Path("/sys/module/nfs/parameters/localio_enabled")
#: Of the calling thread's network namespace.
SOCKETS = pathlib.Path("/proc/thread-self/net")

_LISTENING = "0A"
_CAP_NET_ADMIN = 12

#: An address and a port.
Endpoint = tuple[str, int]


def transports() -> list[tuple[str, int]]:
    """Transport and port of each of the server's sockets.

    :raises OSError: there is no NFS server.
    """
    lines = PORTLIST.read_text("ascii").splitlines()
    words = (line.split() for line in lines if line.strip())
    return [(word[0], int(word[1])) for word in words]


def has_localio() -> bool:
    """Whether NFS clients on this machine bypass the network: LOCALIO of
    Linux 6.12 and later; see nfs/localio in the kernel's documentation."""
    try:
        return LOCALIO.read_text("ascii").strip() == "Y"
    except FileNotFoundError:
        # This kernel has none, or there is no client.
        return False


def may_change_rules() -> bool:
    """Whether this process has CAP_NET_ADMIN."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_NET_ADMIN & 1)
    return False


def endpoints(ports: Iterable[int]) -> list[Endpoint]:
    """Where TCP ports are listened on, in this network namespace. A socket
    for all addresses gives the one of the loopback interface.

    :raises OSError: this cannot be read.
    """
    wanted = set(ports)
    found = []
    for name, loopback in (("tcp", "127.0.0.1"), ("tcp6", "::1")):
        path = SOCKETS / name
        if not path.exists():
            continue
        for line in path.read_text("ascii").splitlines()[1:]:
            _, local, _, state = line.split()[:4]
            address, _, port = local.rpartition(":")
            if state == _LISTENING and int(port, 16) in wanted:
                text = _address(address)
                if ipaddress.ip_address(text).is_unspecified:
                    text = loopback
                found.append((text, int(port, 16)))
    return found


def connected(wanted: Iterable[Endpoint], seconds: float) -> list[Endpoint]:
    """The endpoints that accept a TCP connection within this time. Waits for
    all; the connections are closed."""
    waiting = {}
    poll = select.poll()
    try:
        for endpoint in wanted:
            family = socket.AF_INET6 if ":" in endpoint[0] else socket.AF_INET
            each = socket.socket(family, socket.SOCK_STREAM)
            waiting[each.fileno()] = (each, endpoint)
            each.setblocking(False)
            each.connect_ex(endpoint)
            poll.register(each, select.POLLOUT)
        return _accepted(waiting, poll, seconds)
    finally:
        for each, _ in waiting.values():
            each.close()


def _accepted(
    waiting: dict[int, tuple[socket.socket, Endpoint]],
    poll: "select.poll",
    seconds: float,
) -> list[Endpoint]:
    found = []
    left = len(waiting)
    end = time.monotonic() + seconds
    while left and (now := time.monotonic()) < end:
        for number, _ in poll.poll((end - now) * 1000):
            poll.unregister(number)
            left -= 1
            each, endpoint = waiting[number]
            if not each.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                found.append(endpoint)
    return found


def _address(text: str) -> str:
    """:param text: words of 32 bits, hexadecimal, in this machine's order."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    return str(ipaddress.ip_address(packed))
