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

"""Base class of the tests' HTTP servers.

It does not use that of ``http.server``: eventlet imports a copy of this
module, with its own locks, and leaves the copy where ``import http.server``
finds it (eventlet/patcher.py, ``inject``). The server's native thread would
then make ``stop`` wait forever in an eventlet hub. Cinder imports eventlet, so
this depends on the order of imports.
"""

import socketserver


class Server(socketserver.ThreadingTCPServer):
    """A thread per connection; for handlers of ``http.server``."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    @property
    def server_port(self) -> int:
        return int(self.server_address[1])
