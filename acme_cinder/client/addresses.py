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

from collections.abc import Sequence
import ipaddress
import urllib.parse

import requests

from acme_cinder.client import errors

DEFAULT_PORT = 8443


def normalise(address: str) -> str:
    """``scheme://host:port`` of a management address.

    Takes ``https://host[:port]``, ``host[:port]``, and IPv6 addresses, in
    brackets where a port follows. Plain http is for loopback only: a token
    would be readable on any other network.

    :raises ConfigurationError: it is none of these. The address is not
        repeated in the message where it has a password in it.
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
            "would send the token readable over the network; use https"
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
    if any(char.isspace() or char in "%\\" for char in host):
        raise _bad(address)
    return host, port if port is not None else DEFAULT_PORT


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


class AddressBook:
    """Where to send, the address that answered last first.

    Safe under threads: all there is to change is one integer.
    """

    def __init__(self, addresses: Sequence[str]):
        if not addresses:
            raise errors.ConfigurationError(
                "at least one management address is needed"
            )
        self.addresses = tuple(
            dict.fromkeys(normalise(address) for address in addresses)
        )
        self._good = 0

    def in_order(self) -> tuple[str, ...]:
        """All addresses, beginning with the good one."""
        good = self._good
        return self.addresses[good:] + self.addresses[:good]

    def remember(self, address: str) -> None:
        """``address`` has answered: begin there from now on."""
        self._good = self.addresses.index(address)
