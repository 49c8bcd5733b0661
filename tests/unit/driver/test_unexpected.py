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

"""Faults of what Cinder itself brings, and what users put into connectors.

They must not put volumes in error, nor stop what runs for all of them.
"""

import contextlib
import unittest.mock

from cinder import coordination
from cinder import exception
from cinder.db import api as db
import ddt
from oslo_db import exception as db_exception
from oslo_serialization import jsonutils
from tooz import coordination as tooz

from acme_cinder import records
from tests.unit.driver import base
from tests.unit.driver import cinderdb

HOST = base.connector("cmp-1")
ADDRESS = {HOST["ip"]: "rw"}


class _Lock:
    """Cinder's own, whose service goes away at some moment."""

    real = coordination.COORDINATOR.get_lock
    fails_at = "acquire"

    def __init__(self, name):
        self._lock = type(self).real(name)

    def acquire(self, blocking=True):
        self._fail("acquire")
        return self._lock.acquire(blocking)

    def release(self):
        self._lock.release()
        self._fail("release")

    def _fail(self, at):
        if self.fails_at == at:
            raise tooz.ToozConnectionError("etcd is away")


class _LockLostAtRelease(_Lock):
    fails_at = "release"


class UnexpectedTestCase(base.DriverTestCase):
    def lose_access(self):
        """An attached volume whose rule is missing."""
        volume = self.create()
        self.attach(volume, HOST)
        volume = cinderdb.reloaded(volume)
        volume.status = "in-use"
        volume.save()
        self.driver._api.revoke_access(volume.name_id, "cinder:cmp-1")
        return volume

    def start(self, volume):
        """As the manager's _init_host, to which an exception is an error."""
        self.driver._initialized = False
        self.driver.ensure_export(self.context, volume)
        self.driver.set_initialized()

    def report(self):
        self.driver._sweep._due_at = 0
        return self.driver.get_volume_stats(refresh=True)


class FaultsOfCinderTest(UnexpectedTestCase):
    def assert_harmless(self, *faults):
        volume = self.lose_access()
        with contextlib.ExitStack() as stack:
            for fault in faults:
                stack.enter_context(fault)
            self.start(volume)
            self.driver.ensure_export(self.context, volume)
            self.assertIn("pools", self.report())
        self.assertEqual({}, self.exported(volume))
        self.report()
        self.assertEqual(ADDRESS, self.exported(volume))

    def test_the_database(self):
        gone = db_exception.DBConnectionError("gone")
        self.assert_harmless(
            *(
                unittest.mock.patch.object(records, name, side_effect=gone)
                for name in ("read", "read_all")
            )
        )

    def test_the_locks(self):
        self.assert_harmless(
            unittest.mock.patch.object(
                coordination.COORDINATOR, "get_lock", _Lock
            )
        )

    def test_no_lock_is_an_error_of_cinder(self):
        volume = self.create()
        with (
            unittest.mock.patch.object(
                coordination.COORDINATOR, "get_lock", _Lock
            ),
            self.assertRaisesRegex(
                exception.VolumeBackendAPIException, "etcd is away"
            ),
        ):
            self.attach(volume, HOST)
        self.assertEqual({}, self.exported(volume))

    def test_a_lock_that_is_not_released(self):
        volume = self.create()
        with unittest.mock.patch.object(
            coordination.COORDINATOR, "get_lock", _LockLostAtRelease
        ):
            self.attach(volume, HOST)
        self.assertEqual(ADDRESS, self.exported(volume))


@ddt.ddt
class OddConnectorTest(UnexpectedTestCase):
    """Any user may send any object as a connector."""

    @ddt.data(
        {},
        {"host": 7, "ip": "192.0.2.9"},
        {"host": ["a"], "ip": "192.0.2.9"},
        {"host": {"a": 1}, "ip": "192.0.2.9"},
        {"host": "\ud800", "ip": "192.0.2.9"},
        {"host": None, "ip": "192.0.2.9"},
        {"ip": "192.0.2.9"},
    )
    def test_is_refused(self, odd):
        volume = self.create()
        with self.assertRaises(exception.InvalidConnectorException):
            self.driver.validate_connector(odd)
        with self.assertRaises(exception.InvalidConnectorException):
            self.driver.initialize_connection(volume, odd)
        self.assertIs(False, self.driver.terminate_connection(volume, odd))

    @ddt.data(
        {"host": 7, "ip": 8},
        {"host": ["a"], "ip": ["b"], "mode": ["c"]},
        {"host": {"a": 1}, "mode": {}},
    )
    def test_recorded_by_an_earlier_release(self, odd):
        poisoned, volume = self.create(), self.lose_access()
        row = cinderdb.attachment(poisoned, None)
        db.volume_attachment_update(
            self.context,
            row.id,
            {
                "connector": jsonutils.dumps(odd),
                "attach_status": "attached",
            },
        )
        self.start(cinderdb.reloaded(poisoned))
        self.report()
        self.assertEqual(ADDRESS, self.exported(volume))
        self.assertIs(
            False, self.driver.terminate_connection(poisoned, dict(odd))
        )
