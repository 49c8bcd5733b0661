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

"""Packet rules through libnftables, which changes many things at once.

Uses ctypes, because a table with an owner lives as long as the context that
made it: the program nft ends at once.
"""

import ctypes
import functools

LIBRARY = "libnftables.so.1"


class NftError(Exception):
    """The library is missing, or the kernel refused; the message has the
    reason."""


@functools.cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise NftError(f"{LIBRARY} cannot be used: {error}") from error
    context, text = ctypes.c_void_p, ctypes.c_char_p
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    library.nft_ctx_new.restype = context
    library.nft_ctx_free.argtypes = [context]
    library.nft_ctx_free.restype = None
    for name in ("nft_ctx_buffer_error", "nft_ctx_buffer_output"):
        getattr(library, name).argtypes = [context]
        getattr(library, name).restype = ctypes.c_int
    library.nft_ctx_get_error_buffer.argtypes = [context]
    library.nft_ctx_get_error_buffer.restype = text
    library.nft_run_cmd_from_buffer.argtypes = [context, text]
    library.nft_run_cmd_from_buffer.restype = ctypes.c_int
    return library


class Nft:
    """A connection to the kernel's rules, in this network namespace. Only for
    one thread at a time.

    Tables with ``flags owner`` disappear with it, also if the process is
    killed, and nobody else can change them.
    """

    def __init__(self) -> None:
        library = _library()
        self._context = library.nft_ctx_new(0)
        if not self._context:
            raise NftError("no context of libnftables")
        # Otherwise it prints.
        if library.nft_ctx_buffer_error(
            self._context
        ) or library.nft_ctx_buffer_output(self._context):
            self.close()
            raise NftError("no buffers of libnftables")

    def run(self, commands: str) -> None:
        """Run commands as nft(8) takes them: all or none.

        :raises NftError: the kernel refused them.
        """
        library = _library()
        if library.nft_run_cmd_from_buffer(self._context, commands.encode()):
            reason = library.nft_ctx_get_error_buffer(self._context) or b""
            line = reason.decode(errors="replace").strip().partition("\n")[0]
            raise NftError(f"nft: {line or 'refused'}")

    def close(self) -> None:
        if self._context:
            _library().nft_ctx_free(self._context)
            self._context = None
