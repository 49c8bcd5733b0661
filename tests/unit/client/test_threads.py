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

"""One client under many threads, native and green."""

import pathlib
import subprocess
import sys
import threading
import unittest

import acme_client
from tests.unit.client import base
from tests.unit.client import wire

_ROOT = pathlib.Path(__file__).parents[3]

#: Runs in a process of its own: patching can't be taken back. The server is
#: in the same process, so nothing works unless every wait is a green one.
_GREEN = """
import eventlet
eventlet.monkey_patch()
import tempfile, time
import acme_client
from tests.unit.client import base, wire

now, most = [0], [0]

def respond(seen):
    now[0] += 1
    most[0] = max(most[0], now[0])
    time.sleep(0.05)
    now[0] -= 1
    if seen.path == "/v1/tokens":
        return wire.reply({"token": "acme_" + "s" * 43}, 201)
    return wire.Drop() if seen.nth % 7 == 0 else wire.reply(base.SHARE)

with tempfile.TemporaryDirectory() as directory:
    certificate = wire.Certificate(directory)
    server = wire.Server(respond, tls=certificate)
    api = acme_client.Client(
        ["http://127.0.0.1:1", server.address],
        acme_client.BasicLogin("cinder", "a password"),
        verify=certificate.ca_file,
        pool_size=4,
    )
    pool = eventlet.GreenPool(20)
    shares = list(pool.imap(api.get_share, [base.SHARE_ID] * 100))
    log_ins = [s for s in server.seen if s.path == "/v1/tokens"]
    print(len(shares), "shares", len(log_ins), "log-in", most[0] > 4)
"""


class ThreadsTest(base.ClientTestCase):
    def test_one_client_serves_many_threads(self):
        """Each call gets its own reply, through drops and all."""

        def respond(seen: wire.Seen) -> wire.Behaviour:
            if seen.nth % 5 == 0:
                return wire.Drop()
            share_id = seen.path.rpartition("/")[2]
            return wire.reply({**base.SHARE, "id": share_id})

        server = self.serve(respond)
        api = acme_client.Client(
            [server.address], acme_client.BearerToken(base.TOKEN), pool_size=3
        )
        self.addCleanup(api.close)
        wrong: list[object] = []

        def work(thread: int) -> None:
            for number in range(20):
                wanted = f"{thread}-{number}"
                try:
                    found = api.get_share(wanted).id
                except acme_client.ApiError as exc:
                    wrong.append(exc)
                else:
                    if found != wanted:
                        wrong.append((wanted, found))

        threads = [
            threading.Thread(target=work, args=(number,))
            for number in range(12)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        self.assertEqual([], wrong)


class GreenThreadsTest(unittest.TestCase):
    def test_eventlet(self):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _GREEN],
            cwd=_ROOT,
            capture_output=True,
            text=True,
            timeout=120,
        )
        self.assertEqual(
            (0, "100 shares 1 log-in True\n"),
            (done.returncode, done.stdout),
            done.stderr,
        )
