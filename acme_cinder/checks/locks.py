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

"""Checks of the locks that all services of a cluster share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from typing import Final
import uuid

from oslo_config import cfg
from tooz import coordination as tooz

from acme_cinder.checks import findings

_SECONDS: Final = 10.0
_OPTION: Final = "[coordination] backend_url"


def _locks(scene: findings.Scene) -> Iterator[findings.Note]:
    url = str(cfg.CONF.coordination.backend_url)
    kind = url.partition(":")[0]
    if scene.cluster and kind == "file":
        yield findings.failed(
            f"{_OPTION}: the cluster {scene.cluster} needs locks that all of "
            "its hosts see; files are seen by one",
            "set it to a service that all of them reach, such as "
            "etcd3+http://HOST:2379, and install its client",
            is_option=True,
        )
        return
    try:
        _try(url)
    except Exception as error:
        # tooz's drivers raise what their libraries raise.
        yield findings.failed(
            f"{_OPTION}: no lock is to be had by {kind}: "
            f"{type(error).__name__}: {error}",
            "is the service reachable, and the client that tooz needs for "
            "it installed (pip install tooz[etcd3gw], for example)?",
            is_option=True,
        )
        return
    yield findings.ok(
        f"locks by {kind}, for "
        + (f"the cluster {scene.cluster}" if scene.cluster else "this host")
    )


def _try(url: str) -> None:
    name = f"acme-check-{uuid.uuid4()}"
    coordinator = tooz.get_coordinator(url, name.encode())
    coordinator.start()
    try:
        lock: Any = coordinator.get_lock(name.encode())
        if not lock.acquire(blocking=_SECONDS):
            raise tooz.ToozError("a lock that nobody has was not given")
        lock.release()
    finally:
        coordinator.stop()


LOCKS: Final = findings.Check("locks", _locks)
