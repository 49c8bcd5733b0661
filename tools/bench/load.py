# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""Requests from many concurrent clients, and answers per second.

Uses only the standard library, because on a small machine the client takes CPU
time from the appliance.
"""

from collections.abc import Callable
from collections.abc import Iterable
import http.client
import itertools
import json
import pathlib
import ssl
import threading
import time
import uuid

_TIMEOUT_SECONDS = 60
_SIZE_BYTES = 1 << 30


class Unexpected(Exception):
    """The appliance's answer is not the expected one."""


class Client:
    """One keep-alive connection to an appliance."""

    def __init__(self, port: int, token: str, ca_file: pathlib.Path) -> None:
        self._connection = http.client.HTTPSConnection(
            "127.0.0.1",
            port,
            timeout=_TIMEOUT_SECONDS,
            context=ssl.create_default_context(cafile=str(ca_file)),
        )
        self._headers = {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
        }

    def call(
        self, method: str, path: str, wanted: int, body: str | None = None
    ) -> None:
        """Send a request. :raises Unexpected: another status."""
        self._connection.request(method, path, body, self._headers)
        reply = self._connection.getresponse()
        data = reply.read()
        if reply.status != wanted:
            raise Unexpected(f"{method} {path}: {reply.status} {data!r}")

    def close(self) -> None:
        self._connection.close()

    # -- the operations that are measured

    def nothing(self, share_id: str) -> None:
        """The costs of the server, TLS and the framework."""
        self.call("GET", "/healthz", 200)

    def create(self, share_id: str) -> None:
        body = {
            "name": f"volume-{share_id}",
            "size_bytes": _SIZE_BYTES,
            "labels": {"cinder.volume_id": share_id},
        }
        self.call("PUT", f"/v1/shares/{share_id}", 201, json.dumps(body))

    def read(self, share_id: str) -> None:
        self.call("GET", f"/v1/shares/{share_id}", 200)

    def delete(self, share_id: str) -> None:
        self.call("DELETE", f"/v1/shares/{share_id}", 204)


def new_ids() -> Iterable[str]:
    """Yield new ids."""
    return (str(uuid.uuid4()) for _ in itertools.count())


def run_together(
    calls: list[Callable[[str], None]], ids: Iterable[str], seconds: float
) -> tuple[list[str], float]:
    """Run each of ``calls`` in a thread, with one id after the other, until
    the time or the ids are used up.

    Return the used ids, and the calls per second. The first error of a call
    is raised.
    """
    lock = threading.Lock()
    left = iter(ids)
    done: list[str] = []
    errors: list[Exception] = []
    began = time.perf_counter()

    def work(call: Callable[[str], None]) -> None:
        while time.perf_counter() - began < seconds and not errors:
            with lock:
                id_ = next(left, None)
            if id_ is None:
                return
            try:
                call(id_)
            except Exception as error:
                errors.append(error)
                return
            done.append(id_)

    threads = [threading.Thread(target=work, args=[call]) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return done, len(done) / (time.perf_counter() - began)
