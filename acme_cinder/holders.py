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

"""The names of the driver's access rules.

Every rule that the driver makes has one of these prefixes, and the name of a
host. All other rules on a share belong to somebody else, and the driver
leaves them alone.

``cinder:HOST``
    For the attachments on a host that Cinder's database has a record of. Its
    records alone say whether the rule is needed; see :mod:`.access`.
``cinder-service:HOST``
    For a connection without such a record: Cinder attaches a volume for
    itself (backup, restore, migration), or the first attachment API does.
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
    """As os-brick calls it in its connectors."""
    return socket.gethostname()


def of_host(host: str) -> str:
    """The holder for the recorded attachments on a host."""
    return _HOST_PREFIX + _plain(host)


def of_service(host: str) -> str:
    """The holder for a host's connections without a record."""
    return _SERVICE_PREFIX + _plain(host)


def of_mounts(host: str) -> str:
    """The holder for the driver's own mounts on a host."""
    return _MOUNT_PREFIX + _plain(host)


def is_ours(holder: str) -> bool:
    return holder.startswith((_HOST_PREFIX, _SERVICE_PREFIX, _MOUNT_PREFIX))


def is_hosts(holder: str) -> bool:
    return holder.startswith(_HOST_PREFIX)


def is_attachments(holder: str) -> bool:
    """Recorded or not; all but the driver's own mounts."""
    return holder.startswith((_HOST_PREFIX, _SERVICE_PREFIX))


def is_services(holder: str) -> bool:
    return holder.startswith(_SERVICE_PREFIX)


def _plain(host: str) -> str:
    """A host's name; of one that a holder cannot have in it, a digest."""
    if _HOST.fullmatch(host):
        return host
    # JSON can have halves of characters in it, which UTF-8 cannot.
    return hashlib.sha256(host.encode(errors="surrogatepass")).hexdigest()
