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

"""NFS 4.0 byte by byte, to send what no regular client sends.

RFC 7530 section 16 specifies the operations, RFC 5531 the messages.
"""

import socket
import struct

_PROGRAM, _VERSION, _COMPOUND = 100003, 4, 1
_AUTH_SYS = 1
_LAST_FRAGMENT = 0x80000000
_GETFH, _LOOKUP, _PUTFH, _PUTROOTFH, _READ, _WRITE = 10, 15, 22, 24, 25, 38
#: For reads and writes without an open file, which servers allow.
_ANONYMOUS = bytes(16)
_FILE_SYNC = 2
#: The message's id, its kind, accepted, no verifier, success.
_REPLY_HEADER = struct.Struct(">IIIIII")


def _opaque(data):
    return struct.pack(">I", len(data)) + data + bytes(-len(data) % 4)


def _operation(number, arguments=b""):
    return struct.pack(">I", number) + arguments


class Client:
    """One connection from a privileged port (needs root)."""

    def __init__(self, host):
        self._socket = socket.socket()
        self._socket.settimeout(60)
        for port in range(1023, 600, -1):
            try:
                self._socket.bind(("", port))
                break
            except OSError:
                continue
        self._socket.connect((host, 2049))
        self._id = 0

    def close(self):
        self._socket.close()

    def handle(self, *names):
        """The handle of a path below the server's root.

        :raises OSError: access is denied; errno is the NFS status.
        """
        reply = self._compound(
            _operation(_PUTROOTFH),
            *(_operation(_LOOKUP, _opaque(name.encode())) for name in names),
            _operation(_GETFH),
        )
        # All results except the last are a number and a status.
        (size,) = struct.unpack_from(">I", reply, 8 * len(names) + 16)
        start = 8 * len(names) + 20
        return reply[start : start + size]

    def read(self, handle, size):
        """:raises OSError: errno is the NFS status."""
        reply = self._compound(
            _operation(_PUTFH, _opaque(handle)),
            _operation(_READ, _ANONYMOUS + struct.pack(">QI", 0, size)),
        )
        (length,) = struct.unpack_from(">I", reply, 20)
        return reply[24 : 24 + length]

    def write(self, handle, data):
        """:raises OSError: errno is the NFS status."""
        place = struct.pack(">QI", 0, _FILE_SYNC)
        self._compound(
            _operation(_PUTFH, _opaque(handle)),
            _operation(_WRITE, _ANONYMOUS + place + _opaque(data)),
        )

    def _compound(self, *operations):
        """The data after status, tag and count."""
        self._id += 1
        credential = _opaque(
            struct.pack(">I", 0)
            + _opaque(b"test")
            + struct.pack(">III", 0, 0, 0)
        )
        message = (
            struct.pack(
                ">IIIIII", self._id, 0, 2, _PROGRAM, _VERSION, _COMPOUND
            )
            + struct.pack(">I", _AUTH_SYS)
            + credential
            + bytes(8)
            + _opaque(b"")
            + struct.pack(">II", 0, len(operations))
            + b"".join(operations)
        )
        mark = struct.pack(">I", _LAST_FRAGMENT | len(message))
        self._socket.sendall(mark + message)
        reply = self._reply()[_REPLY_HEADER.size :]
        (status,) = struct.unpack_from(">I", reply)
        if status:
            raise OSError(status, f"NFS status {status}")
        return reply[12:]

    def _reply(self):
        whole, mark = b"", 0
        while not mark & _LAST_FRAGMENT:
            (mark,) = struct.unpack(">I", self._receive(4))
            whole += self._receive(mark & ~_LAST_FRAGMENT)
        return whole

    def _receive(self, size):
        data = b""
        while len(data) < size:
            more = self._socket.recv(size - len(data))
            if not more:
                raise EOFError("the server closed the connection")
            data += more
        return data
