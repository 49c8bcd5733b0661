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

"""Holding back all replies of the kernel's NFS server for a moment.

A packet rule drops what the server's ports send, in the server's network
namespace. TCP sends it again later, so clients notice one slow request. The
rule expires by itself. Whether it is in force is tried out: the server must
accept no connection.

Not all clients need the network. What the rule would miss is refused: RDMA,
and LOCALIO, by which clients on this machine bypass the network.
"""

from collections.abc import Iterator
import contextlib
import threading
import time
from typing import Final

from acme_appliance.exporters import base
from acme_appliance.host import nfsserver
from acme_appliance.host import packetrules

#: How long a connection takes at most, where nothing is held back, and how
#: long none must be made, where it is. A loopback connection takes 0.3 ms.
_ANSWER_SECONDS: Final = 1.0
_SILENCE_SECONDS: Final = 0.01
#: How long to wait for another moment to end.
_TURN_SECONDS: Final = 30.0

#: The rule is one for all.
_turn = threading.Lock()


class KernelCut(base.Cut):
    """With an installed rule.

    :param endpoints: where the server listens; not empty.
    """

    def __init__(
        self,
        rule: packetrules.Rule,
        ports: list[int],
        endpoints: list[nfsserver.Endpoint],
    ) -> None:
        self._rule = rule
        self._ports = ports
        self._endpoints = endpoints

    @contextlib.contextmanager
    def shut(self, seconds: float) -> Iterator[None]:
        begin = _now()
        opened = False
        try:
            self._shut(int(seconds))
            yield
            self._check("replies were not held back until the end")
            opened = self._open()
        finally:
            if not opened:
                self._open()
            self.pause_seconds = _now() - begin
        if not opened or self.pause_seconds >= seconds:
            raise base.CutLost(
                f"replies were held back for {self.pause_seconds:.1f} s, and"
                " then passed before the end"
            )

    def _shut(self, seconds: int) -> None:
        try:
            self._rule.shut(self._ports, seconds)
        except packetrules.RuleError as error:
            raise base.CannotCut(str(error)) from error
        _check_bypasses()
        reached = nfsserver.connected(self._endpoints, _SILENCE_SECONDS)
        if reached:
            raise base.CannotCut(
                f"a packet rule does not stop {_text(reached[0])}: another"
                " rule may accept the packets before, or the server is in"
                " another network namespace"
            )

    def _check(self, message: str) -> None:
        if nfsserver.connected(self._endpoints, _SILENCE_SECONDS):
            raise base.CutLost(message)

    def _open(self) -> bool:
        """Whether the rule was still there."""
        try:
            self._rule.open(self._ports)
        except packetrules.RuleError:
            # It expires, or has expired.
            return False
        return True


@contextlib.contextmanager
def prepared() -> Iterator[KernelCut]:
    """See :meth:`base.Exporter.cut`."""
    if not _turn.acquire(timeout=_TURN_SECONDS):
        raise base.ExporterError(
            "the replies are being held back for another group: try again"
        )
    try:
        ports = _ports()
        _check_bypasses()
        endpoints = _endpoints(ports)
        _check_privilege()
        with contextlib.ExitStack() as stack:
            try:
                rule = stack.enter_context(packetrules.install())
            except packetrules.RuleError as error:
                raise base.CannotCut(
                    f"there is no packet rule that expires: {error}. Install"
                    " libnftables1, on a kernel with nf_tables and its family"
                    " inet, or ipset and iptables"
                ) from error
            yield KernelCut(rule, ports, endpoints)
    finally:
        _turn.release()


def sweep() -> None:
    """See :meth:`base.Exporter.sweep_cuts`."""
    if not nfsserver.may_change_rules():
        # So it cannot have left one.
        return
    with _turn:
        try:
            packetrules.sweep()
        except packetrules.RuleError as error:
            raise base.ExporterError(str(error)) from error


def _ports() -> list[int]:
    try:
        found = nfsserver.transports()
    except OSError as error:
        raise base.CannotCut(f"there is no NFS server: {error}") from error
    if any(transport == "rdma" for transport, _ in found):
        raise base.CannotCut(
            "the NFS server listens on RDMA, which no packet rule stops: set"
            " rdma = n in [nfsd] of /etc/nfs.conf, and restart nfs-server"
        )
    return sorted({port for _, port in found})


def _check_bypasses() -> None:
    if nfsserver.has_localio():
        raise base.CannotCut(
            "NFS clients on this machine bypass the network (LOCALIO): write"
            f" N to {nfsserver.LOCALIO}, and the line 'options nfs"
            " localio_enabled=N' to /etc/modprobe.d/acme-appliance.conf"
        )


def _endpoints(ports: list[int]) -> list[nfsserver.Endpoint]:
    found = nfsserver.endpoints(ports)
    if not found:
        raise base.CannotCut(
            "the NFS server does not listen on TCP in the network namespace"
            " of the appliance: run both in the same one"
        )
    reached = nfsserver.connected(found, _ANSWER_SECONDS)
    silent = [each for each in found if each not in reached]
    if silent:
        raise base.CannotCut(
            f"the NFS server does not answer on {_text(silent[0])}, so it"
            " cannot be tried whether its replies are held back: let a"
            " firewall accept connections of the machine to itself"
        )
    return found


def _check_privilege() -> None:
    if not nfsserver.may_change_rules():
        raise base.CannotCut(
            "the appliance may not change packet rules: add CAP_NET_ADMIN to"
            " AmbientCapabilities= and CapabilityBoundingSet= of its systemd"
            " unit, as the unit of this release has it"
        )


def _text(endpoint: nfsserver.Endpoint) -> str:
    return f"port {endpoint[1]} of {endpoint[0]}"


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
