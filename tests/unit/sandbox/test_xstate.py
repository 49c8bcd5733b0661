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

"""The library that is preloaded into user-mode Linux on a CPU with AMX.

On any x86-64 CPU: a traced process represents the guest's, and a buffer that
is smaller than this CPU's registers that of user-mode Linux.
"""

import ctypes
import os
import pathlib
import platform
import signal
import subprocess
import sys
import tempfile
import unittest

SOURCE = pathlib.Path(__file__).resolve().parents[3] / "tools/sandbox/xstate.c"
#: FXSAVE's area, the XSAVE header, and the upper halves of the AVX registers.
SHORT_BYTES = 512 + 64 + 256

GETREGSET, SETREGSET, NT_X86_XSTATE = 0x4204, 0x4205, 0x202
TRACEME, PEEKDATA = 0, 2
WORD = ctypes.c_long(0x1234567890)


class Area(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def ptrace(request: int, pid: int, address: int, data: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.restype = ctypes.c_long
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_int] + [
        ctypes.c_void_p
    ] * 2
    ctypes.set_errno(0)
    result: int = libc.ptrace(request, pid, address, data)
    if ctypes.get_errno():
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def registers(pid: int, size: int) -> bytes:
    buffer = ctypes.create_string_buffer(size)
    area = Area(ctypes.addressof(buffer), size)
    ptrace(GETREGSET, pid, NT_X86_XSTATE, ctypes.byref(area))
    return buffer.raw[: area.length]


def set_registers(pid: int, content: bytes) -> None:
    buffer = ctypes.create_string_buffer(content, len(content))
    area = Area(ctypes.addressof(buffer), len(content))
    ptrace(SETREGSET, pid, NT_X86_XSTATE, ctypes.byref(area))


def start_traced() -> int:
    pid = os.fork()
    if pid == 0:
        try:
            ptrace(TRACEME, 0, 0, None)
            os.kill(os.getpid(), signal.SIGSTOP)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    return pid


def trace() -> None:
    """Trace a process, with and without the library."""
    pid = start_traced()
    try:
        whole = registers(pid, 1 << 16)
        # The first vector register, and, in the header, that it is in use.
        changed = bytearray(whole[:SHORT_BYTES])
        changed[160:176] = bytes(range(16))
        changed[512] |= 0b10
        # At the same address in the copy that fork made.
        print(hex(ptrace(PEEKDATA, pid, ctypes.addressof(WORD), None)))
        set_registers(pid, bytes(changed))
        print(registers(pid, 1 << 16)[160:176].hex())
        print(len(registers(pid, 1 << 16)) == len(whole))
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@unittest.skipUnless(platform.machine() == "x86_64", "x86-64 only")
class Xstate(unittest.TestCase):
    def trace(self, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, __file__],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=60,
        )

    def test_fills_up_what_is_short(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            library = pathlib.Path(folder) / "xstate.so"
            subprocess.run(
                ["gcc", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
                + ["-O2", "-o", str(library), str(SOURCE)],
                check=True,
                timeout=60,
            )
            done = self.trace(LD_PRELOAD=str(library))
        self.assertEqual("", done.stderr)
        value = bytes(range(16)).hex()
        self.assertEqual(["0x1234567890", value, "True"], done.stdout.split())

    def test_without_it_the_kernel_refuses(self) -> None:
        done = self.trace()
        if not done.returncode:
            self.skipTest("this CPU has no more registers than that")
        self.assertIn("Bad address", done.stderr)


if __name__ == "__main__":
    trace()
