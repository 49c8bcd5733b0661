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

"""The holders of the driver's access rules.

Every rule of the driver has one of these prefixes, and the name of a host.
All other rules of a share belong to someone else, and the driver does not
change them.

``cinder:HOST``
    For the attachments of a host that are recorded in Cinder's database. Only
    these records decide whether the rule is needed; see :mod:`.access`.
``cinder-service:HOST``
    For a connection without such a record: Cinder attaches a volume for
    itself (backup, restore, migration), or uses the first attachment API.
``cinder-mount:HOST``
    For the driver's own mounts on a host.
"""

from __future__ import annotations

import hashlib
import re
import socket

_HOST_PREFIX = "cinder:"
_SERVICE_PREFIX = "cinder-service:"
_MOUNT_PREFIX = "cinder-mount:"
_HOST = re.compile(r"[A-Za-z0-9._:-]{1,200}")

READ_WRITE = "rw"
READ_ONLY = "ro"


def this_host() -> str:
    """This host's name in os-brick's connectors."""
    return socket.gethostname()


def of_host(host: str) -> str:
    """The holder of a host's recorded attachments."""
    return _HOST_PREFIX + _plain(host)


def of_service(host: str) -> str:
    """The holder of a host's connections without a record."""
    return _SERVICE_PREFIX + _plain(host)


def of_mounts(host: str) -> str:
    """The holder of the driver's own mounts on a host."""
    return _MOUNT_PREFIX + _plain(host)


def is_ours(holder: str) -> bool:
    return holder.startswith((_HOST_PREFIX, _SERVICE_PREFIX, _MOUNT_PREFIX))


def is_hosts(holder: str) -> bool:
    return holder.startswith(_HOST_PREFIX)


def is_attachments(holder: str) -> bool:
    """Whether it is for attachments, recorded or not."""
    return holder.startswith((_HOST_PREFIX, _SERVICE_PREFIX))


def is_services(holder: str) -> bool:
    return holder.startswith(_SERVICE_PREFIX)


def host_of(holder: str) -> str:
    """The host in one of the driver's holders."""
    for prefix in (_HOST_PREFIX, _SERVICE_PREFIX, _MOUNT_PREFIX):
        if holder.startswith(prefix):
            return holder.removeprefix(prefix)
    return holder


def _plain(host: str) -> str:
    """A host's name, or its digest if it is not valid in a holder."""
    if _HOST.fullmatch(host):
        return host
    # JSON can have halves of characters in it, which UTF-8 cannot.
    return hashlib.sha256(host.encode(errors="surrogatepass")).hexdigest()
