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

"""Converts between aiohttp and WSGI (PEP 3333) requests and replies."""

from collections.abc import Callable
from collections.abc import Iterable
import io
import sys
from typing import Any
from typing import TYPE_CHECKING
import urllib.parse

from aiohttp import web

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

#: Status, header fields, body.
Reply = tuple[int, list[tuple[str, str]], bytes]


def environ(
    request: web.BaseRequest, remote_address: str, body: bytes
) -> dict[str, Any]:
    """The WSGI environment of a request.

    ``wsgi.input`` ends with the body, even if no length is given.
    """
    url = request.rel_url
    path = urllib.parse.unquote_to_bytes(url.raw_path).decode("latin-1")
    transport = request.transport
    name = transport.get_extra_info("sockname") if transport else ("", 0)
    version = request.version
    return {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": url.raw_query_string,
        "SERVER_NAME": str(name[0]),
        "SERVER_PORT": str(name[1]),
        "SERVER_PROTOCOL": f"HTTP/{version.major}.{version.minor}",
        "REMOTE_ADDR": remote_address,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": request.scheme,
        "wsgi.input": io.BytesIO(body),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        **_header_variables(request.raw_headers),
    }


def _header_variables(
    headers: Iterable[tuple[bytes, bytes]],
) -> dict[str, str]:
    variables: dict[str, str] = {}
    for name, value in headers:
        if b"_" in name:
            # It would be confused with the header that has dashes.
            continue
        key = name.decode("latin-1").upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = f"HTTP_{key}"
        text = value.decode("latin-1")
        variables[key] = (
            f"{variables[key]},{text}" if key in variables else text
        )
    return variables


def call(application: "WSGIApplication", variables: dict[str, Any]) -> Reply:
    """Return the complete reply. Blocks: call it in a thread."""
    status, fields = "", list[tuple[str, str]]()
    chunks: list[bytes] = []

    def start_response(
        line: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], object]:
        nonlocal status, fields
        status, fields = line, headers
        return chunks.append

    body = application(variables, start_response)
    try:
        chunks.extend(body)
    finally:
        close = getattr(body, "close", None)
        if close is not None:
            close()
    return int(status.partition(" ")[0]), fields, b"".join(chunks)
