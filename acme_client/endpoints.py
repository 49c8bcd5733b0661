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

"""The management addresses of one appliance."""

from collections.abc import Callable
from collections.abc import Sequence
import ipaddress
import threading
import time
import urllib.parse

from oslo_log import log as logging
import requests

from acme_client import errors

LOG = logging.getLogger(__name__)

DEFAULT_PORT = 8443
#: How long a failed address is tried last.
SUSPECT_SECONDS = 60.0


def normalise(address: str) -> str:
    """``scheme://host:port`` of a management address.

    Takes ``https://host[:port]``, ``host[:port]``, and IPv6 addresses, in
    brackets if a port follows. Plain http is allowed only for loopback,
    because it sends tokens unencrypted.

    :raises ConfigurationError: the address is invalid. The message omits an
        address that contains a password.
    """
    parts = _split(address.strip())
    if parts.username is not None or parts.password is not None:
        raise errors.ConfigurationError(
            "a management address holds a user or password; give these "
            "apart from it"
        )
    host, port = _host_and_port(parts, address)
    if parts.scheme == "http" and not _is_loopback(host):
        raise errors.ConfigurationError(
            f"the management address {address!r} is plain http, which "
            "would send the token unencrypted over the network; use https"
        )
    shown = f"[{host}]" if ":" in host else host
    url = f"{parts.scheme}://{shown}:{port}"
    try:
        host.encode("idna")
        requests.Request("GET", url).prepare()
    except (ValueError, requests.RequestException) as exc:
        raise _bad(address) from exc
    return url


def _split(address: str) -> urllib.parse.SplitResult:
    if "://" not in address:
        address = f"https://{_bracketed(address)}"
    try:
        return urllib.parse.urlsplit(address)
    except ValueError as exc:
        raise _bad(address) from exc


def _bracketed(address: str) -> str:
    try:
        bare = ipaddress.ip_address(address).version == 6
    except ValueError:
        bare = False
    return f"[{address}]" if bare else address


def _host_and_port(
    parts: urllib.parse.SplitResult, address: str
) -> tuple[str, int]:
    try:
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise _bad(address) from exc
    extra = parts.path.strip("/") or parts.query or parts.fragment
    if parts.scheme not in ("http", "https") or not host or extra:
        raise _bad(address)
    if any(char.isspace() or char in "%\\" for char in host) or port == 0:
        raise _bad(address)
    return _one_spelling(host, address), port or DEFAULT_PORT


def _one_spelling(host: str, address: str) -> str:
    try:
        parsed = ipaddress.ip_address(host)
    except ValueError:
        return host
    if parsed.is_unspecified or parsed.is_multicast:
        raise _bad(address)
    return str(parsed)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _bad(address: str) -> errors.ConfigurationError:
    shown = address.rpartition("@")[2]
    return errors.ConfigurationError(
        f"{shown!r} is not a management address; expected is "
        "https://HOST[:PORT], without a path"
    )


class Endpoints:
    """The order in which to try the addresses; thread-safe.

    The address that answered last comes first. A failed one comes last for
    :data:`SUSPECT_SECONDS`. A failure and the recovery of an address are
    logged once each.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        clock: Callable[[], float] = time.monotonic,
    ):
        if not addresses:
            raise errors.ConfigurationError(
                "at least one management address is needed"
            )
        self.addresses = tuple(
            dict.fromkeys(normalise(address) for address in addresses)
        )
        self._clock = clock
        self._lock = threading.Lock()
        self._good = 0
        self._failed_at: dict[str, float] = {}

    def in_order(self) -> tuple[str, ...]:
        """All addresses, the most promising first."""
        with self._lock:
            rotated = (
                self.addresses[self._good :] + self.addresses[: self._good]
            )
            return tuple(sorted(rotated, key=self._is_suspect))

    def _is_suspect(self, address: str) -> bool:
        failed_at = self._failed_at.get(address)
        return (
            failed_at is not None
            and self._clock() - failed_at < SUSPECT_SECONDS
        )

    def answered(self, address: str) -> None:
        """Try this address first from now on."""
        with self._lock:
            self._good = self.addresses.index(address)
            recovered = self._failed_at.pop(address, None) is not None
        if recovered:
            LOG.info("The appliance answers at %s again", address)

    def failed(self, address: str, why: errors.ApiError) -> None:
        """Try the other addresses first for a while."""
        with self._lock:
            known = address in self._failed_at
            self._failed_at[address] = self._clock()
        if not known and len(self.addresses) > 1:
            LOG.warning(
                "The appliance does not answer at its management address "
                "%(address)s; its other addresses are used: %(why)s",
                {"address": address, "why": why.message},
            )
