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

"""Writers that pass a token over several volumes, and what must be in
snapshots of them.

A chain is a ring of writers, one per client. The writer that has the token,
the number N, writes N to volume N mod M, and passes N + 1 on when the write
is acknowledged. So each write depends on all before it. In snapshots of one
moment a chain is a prefix: if N is in them, so is everything before N.

Each chain has a ring of pages in each volume. One page has one record:
clients that write to one page overwrite each other's records, because they
cache pages.

Run as a program, this module is one client: it reads its task from its
standard input, see :class:`Client`.
"""

import ctypes
import json
import mmap
import os
import signal
import struct
import subprocess
import sys
import threading

PAGE = 4096
#: Pages of a chain in a volume.
PAGES = 64
SYNC, FSYNC = "o_sync", "fsync"
#: The chains: how each writes.
CHAINS = (SYNC, FSYNC)
FILE_BYTES = len(CHAINS) * PAGES * PAGE
_STOP = 2**64 - 1
_PR_SET_PDEATHSIG = 1


def offset(chain, number, volumes):
    """Where a record is in its volume."""
    return (chain * PAGES + number // volumes % PAGES) * PAGE


# -- checking


def read_chain(chain, files):
    """The numbers in a chain's pages of each volume; 0: empty."""
    found = []
    for path in files:
        with open(path, "rb") as file:
            file.seek(chain * PAGES * PAGE)
            data = file.read(PAGES * PAGE).ljust(PAGES * PAGE, b"\0")
        pages = range(0, PAGES * PAGE, PAGE)
        found.append([struct.unpack_from("<Q", data, at)[0] for at in pages])
    return found


def expected_chain(last, volumes):
    """What :func:`read_chain` finds if everything up to ``last`` is there."""
    pages = [[0] * PAGES for _ in range(volumes)]
    for number in range(max(1, last - volumes * PAGES + 1), last + 1):
        pages[number % volumes][number // volumes % PAGES] = number
    return pages


def lost(chain, files):
    """The last number of a chain in a set of snapshots, and how many before
    it are missing."""
    found = read_chain(chain, files)
    last = max(max(pages) for pages in found)
    wanted = expected_chain(last, len(files))
    missing = sum(
        have != want
        for each, expected in zip(found, wanted, strict=True)
        for have, want in zip(each, expected, strict=True)
    )
    return last, missing


# -- running


class Ring:
    """Starts clients and gives them the tokens.

    :param folder: for what the clients tell.
    :param tasks: of the clients: ``setup`` (commands), ``files`` (paths of
        the volumes there).
    :param prepare: called with the number and the process id of each client,
        which has its own network and mount namespace by then; or None: the
        clients need none.
    """

    def __init__(self, folder, tasks, prepare=None):
        self._path = os.path.join(folder, "acknowledged")
        with open(self._path, "wb") as file:
            file.write(bytes(8 * len(CHAINS)))
        self._pipes = [[os.pipe() for _ in tasks] for _ in CHAINS]
        self._clients = []
        self._tasks = tasks
        self._prepare = prepare
        self._begun = False

    def __enter__(self):
        try:
            for number in range(len(self._tasks)):
                self._start(number)
            for number, client in enumerate(self._clients):
                self._expect(client, "ready")
                if self._prepare is not None:
                    self._prepare(number, client.pid)
                task = {
                    **self._tasks[number],
                    "acknowledged": self._path,
                    "read": [pipes[number][0] for pipes in self._pipes],
                    "write": [
                        pipes[(number + 1) % len(pipes)][1]
                        for pipes in self._pipes
                    ],
                }
                client.stdin.write(json.dumps(task) + "\n")
                client.stdin.flush()
                self._expect(client, "mounted")
            for pipes in self._pipes:
                os.write(pipes[0][1], struct.pack("<Q", 1))
            self._begun = True
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_):
        try:
            for client in self._clients:
                if client.poll() is not None:
                    raise AssertionError(f"a client died: {client.args}")
            for pipes in self._pipes:
                os.write(pipes[0][1], struct.pack("<Q", _STOP))
            for client in self._clients:
                self._expect(client, "ended")
                client.wait(60)
        finally:
            self._end()

    def acknowledged(self):
        """The last acknowledged number of each chain."""
        with open(self._path, "rb") as file:
            return struct.unpack(f"<{len(CHAINS)}Q", file.read())

    def _start(self, number):
        spaces = ["unshare", "--net", "--mount"] if self._prepare else []
        if self._tasks[number].get("local"):
            spaces = spaces and ["unshare", "--mount"]
        fds = [fd for pipes in self._pipes for pair in pipes for fd in pair]
        self._clients.append(
            subprocess.Popen(
                [*spaces, sys.executable, "-S", "-E", __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                pass_fds=fds,
            )
        )

    @staticmethod
    def _expect(client, word):
        found = client.stdout.readline().strip()
        if found != word:
            raise AssertionError(f"a client says {found!r}, not {word!r}")

    def _end(self):
        for client in self._clients:
            client.kill()
            client.wait()
            client.stdin.close()
            client.stdout.close()
        for pipes in self._pipes:
            for pair in pipes:
                for fd in pair:
                    os.close(fd)


# -- a client


class Client:
    """One client: a writer for each chain."""

    def __init__(self, task):
        for argv in task["setup"]:
            subprocess.run(argv, check=True, stdout=sys.stderr, timeout=60)
        self._task = task
        self._file = open(task["acknowledged"], "r+b")  # noqa: SIM115
        self._acknowledged = mmap.mmap(self._file.fileno(), 0)
        self._volumes = [
            [
                os.open(path, os.O_WRONLY | (os.O_SYNC if kind == SYNC else 0))
                for path in task["files"]
            ]
            for kind in CHAINS
        ]

    def run(self):
        threads = [
            threading.Thread(target=self._write, args=(chain,))
            for chain in range(len(CHAINS))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _write(self, chain):
        try:
            self._pass_on(chain)
        except BaseException as error:
            print(f"chain {chain}: {error!r}", file=sys.stderr, flush=True)
            os._exit(1)

    def _pass_on(self, chain):
        volumes = self._volumes[chain]
        given, next_ = self._task["read"][chain], self._task["write"][chain]
        while True:
            (number,) = struct.unpack("<Q", os.read(given, 8))
            if number == _STOP:
                os.write(next_, struct.pack("<Q", _STOP))
                return
            fd = volumes[number % len(volumes)]
            record = struct.pack("<Q", number).ljust(PAGE, b"\0")
            os.pwrite(fd, record, offset(chain, number, len(volumes)))
            if CHAINS[chain] == FSYNC:
                os.fsync(fd)
            struct.pack_into("<Q", self._acknowledged, 8 * chain, number)
            os.write(next_, struct.pack("<Q", number + 1))


def main():
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    print("ready", flush=True)
    task = json.loads(sys.stdin.readline())
    client = Client(task)
    print("mounted", flush=True)
    client.run()
    print("ended", flush=True)


if __name__ == "__main__":
    main()
