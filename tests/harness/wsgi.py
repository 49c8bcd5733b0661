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

"""Requests to a WSGI application, with or without a connection."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
import io
from typing import Any
import urllib.parse

import requests
import requests.adapters
import urllib3

Wsgi = Callable[..., Iterable[bytes]]


@dataclasses.dataclass(frozen=True)
class Reply:
    """What an application has answered."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes


def call(
    wsgi: Wsgi,
    method: str,
    target: str,
    headers: Mapping[str, str],
    body: bytes,
    **environ: Any,
) -> Reply:
    """Call an application as a server does.

    :param target: path and query, percent-encoded.
    :param environ: other members of the environment, over the defaults.
    """
    status, fields = "500 No reply", []

    def start_response(
        line: str, given: list[tuple[str, str]], exc_info: Any = None
    ) -> None:
        nonlocal status, fields
        status, fields = line, given

    full = {**_environ(method, target, headers, body), **environ}
    data = b"".join(wsgi(full, start_response))
    code, _, reason = status.partition(" ")
    return Reply(int(code), reason, fields, data)


def _environ(
    method: str, target: str, headers: Mapping[str, str], body: bytes
) -> dict[str, Any]:
    path, _, query = target.partition("?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": urllib.parse.unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "https",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, value in headers.items():
        key = name.upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = f"HTTP_{key}"
        environ[key] = value
    return environ


class DirectAdapter(requests.adapters.HTTPAdapter):
    """Calls an application in the thread of the request.

    For tests of neither sockets, TLS nor time-outs, which it ignores: most of
    the time of a request goes into the connection.

    :param find: the application behind a URL; None: there is none in this
        process, and the request needs a connection.
    """

    def __init__(
        self, find: Callable[[str], Wsgi | None], **options: Any
    ) -> None:
        self._find = find
        super().__init__(**options)

    def send(
        self, request: requests.PreparedRequest, *args: Any, **options: Any
    ) -> requests.Response:
        wsgi = self._find(request.url or "")
        if wsgi is None:
            return super().send(request, *args, **options)
        body = request.body or b""
        url = urllib.parse.urlsplit(request.url or "")
        reply = call(
            wsgi,
            request.method or "",
            request.path_url,
            {"Host": url.netloc, **request.headers},
            body.encode() if isinstance(body, str) else body,
            SERVER_NAME=url.hostname,
            SERVER_PORT=str(url.port),
        )
        raw = urllib3.HTTPResponse(
            io.BytesIO(reply.body),
            urllib3.HTTPHeaderDict(reply.headers),
            reply.status,
            reason=reply.reason,
            preload_content=False,
            request_method=request.method,
        )
        return self.build_response(request, raw)
