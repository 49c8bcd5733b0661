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

"""``terminal.py SANDBOX-FOLDER``: a shell in the guest on this terminal.

The guest's second console is a pseudo terminal of the host. The guest starts
a shell on its end of it; this connects the terminal to the other. One shell
at a time.
"""

import os
import pathlib
import re
import select
import subprocess
import sys
import termios
import time
import tty

START_SECONDS = 10
_ASSIGNED = re.compile(r"irtual console 1 assigned device '([^']+)'")


def start_shell(name: str, columns: int, lines: int) -> subprocess.Popen[str]:
    """A job in the guest that lasts as long as its shell."""
    sandbox = pathlib.Path(__file__).parent.parent / "sandbox.sh"
    script = (
        # Opening the console is what makes the kernel assign it.
        "exec </dev/tty1 >/dev/tty1 2>&1; "
        f"stty sane cols {columns} rows {lines}; "
        "exec setsid -c -w bash -i"
    )
    return subprocess.Popen(
        [str(sandbox), "exec", name, "--", "bash", "-c", script],
        stdin=subprocess.DEVNULL,
        text=True,
    )


def find_device(name: str) -> str:
    sandbox = pathlib.Path(__file__).parent.parent / "sandbox.sh"
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        said = subprocess.run(
            [str(sandbox), "exec", name, "--", "dmesg"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        if found := _ASSIGNED.findall(said):
            return str(found[-1])
    raise SystemExit("the guest's console did not come up")


def relay(device: int, shell: subprocess.Popen[str]) -> None:
    """Copy both ways until the shell ends."""
    while shell.poll() is None:
        ready, _, _ = select.select([device, sys.stdin], [], [], 0.3)
        if device in ready:
            data = os.read(device, 4096)
            if not data:
                return
            os.write(sys.stdout.fileno(), data)
        if sys.stdin in ready:
            data = os.read(sys.stdin.fileno(), 4096)
            if not data:
                return
            os.write(device, data)


def main() -> int:
    if not sys.stdin.isatty():
        raise SystemExit("sandbox: a shell needs a terminal; use exec")
    name = pathlib.Path(sys.argv[1]).name
    size = os.get_terminal_size()
    shell = start_shell(name, size.columns, size.lines)
    device = os.open(find_device(name), os.O_RDWR | os.O_NOCTTY)
    own = termios.tcgetattr(sys.stdin)
    try:
        tty.setraw(device)
        tty.setraw(sys.stdin)
        relay(device, shell)
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, own)
        if shell.poll() is None:
            shell.terminate()
        os.close(device)
    return shell.wait()


if __name__ == "__main__":
    sys.exit(main())
