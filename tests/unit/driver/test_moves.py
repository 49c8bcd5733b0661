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

"""Migrating volumes between the pools of one appliance.

With Cinder's own manager, which asks the driver first.
"""

from __future__ import annotations

import contextlib
import threading
from typing import Any
from unittest import mock

from cinder import exception
from cinder.volume import manager
import ddt

from acme_appliance.engines.memory import engine as memory
import acme_client
from tests.unit.driver import base
from tests.unit.driver import cinderdb
from tests.unit.driver import test_reverts

GOLD, SILVER = "ctl-1@acme#gold", "ctl-1@acme#silver"
DATA = b"d" * memory.BLOCK_BYTES


class Manager(test_reverts.Manager):
    """Cinder's, without its service and its own copy."""

    def _get_service(self, host: Any = None, binary: Any = None) -> Any:
        return mock.Mock(availability_zone="nova", uuid=self.service_uuid)

    service_uuid = "aaaaaaaa-0000-4000-8000-000000000000"

    def _migrate_volume_generic(
        self, ctxt: Any, volume: Any, backend: Any, new_type_id: Any
    ) -> None:
        self.generic.append(volume.id)


class MoveCase(base.DriverTestCase):
    appliance_options = {"pools": ("gold", "silver")}

    def setUp(self) -> None:
        super().setUp()
        self.volume = self.create(host=GOLD)
        self.entries(self.volume)[self.volume.name].write(0, DATA)
        self.enterContext(
            mock.patch.object(
                manager.volume_utils,
                "require_driver_initialized",
                autospec=True,
            )
        )
        self.log.clear()

    def capabilities(self, pool: str) -> dict[str, Any]:
        stats = self.driver.get_volume_stats(refresh=True)
        self.log.clear()
        (found,) = [
            each for each in stats["pools"] if each["pool_name"] == pool
        ]
        return dict(found)

    def migrate(self, host: str = SILVER, **told: Any) -> Manager:
        """As from the scheduler's message."""
        capabilities = self.capabilities(host.rpartition("#")[2])
        found = cinderdb.reloaded(self.volume)
        found.previous_status = found.status
        made = Manager(self.driver)
        made.migrate_volume(
            self.context,
            found,
            {
                "host": host,
                "cluster_name": None,
                "capabilities": {**capabilities, **told},
            },
        )
        self.volume = cinderdb.reloaded(self.volume)
        return made

    def check_is_in(self, pool: str) -> None:
        share = self.share(self.volume)
        self.assertEqual((pool, "available"), (share.pool, share.state))
        entry = self.appliance.engines[pool].entries(
            test_reverts.memory.base.Reference("share", share.id)
        )[self.volume.name]
        self.assertEqual(DATA, entry.read(0, memory.BLOCK_BYTES))
        self.assertEqual(f"ctl-1@acme#{pool}", self.volume.host)
        self.assertEqual(
            [self.volume.provider_location],
            [f"{each.address}:{each.path}" for each in share.export_locations],
        )
        self.assert_unmounted()


@ddt.ddt
class MoveTest(MoveCase):
    def test_one_request(self):
        made = self.migrate()
        self.assertEqual([], made.generic)
        self.assertEqual({"PATCH /v1/shares/{id}": 1}, dict(self.log.counts))
        self.assertEqual("success", self.volume.migration_status)
        self.check_is_in("silver")

    def test_there_and_back_and_every_operation(self):
        self.migrate()
        self.check_is_in("silver")
        kept = self.snapshot(self.volume)
        clone = cinderdb.volume(source_volid=self.volume.id, host=SILVER)
        self.driver.create_cloned_volume(clone, self.volume)
        self.driver.extend_volume(self.volume, 2)
        row = self.attach(self.volume, base.connector("cmp-1"))
        self.assertEqual({"192.0.2.51": "rw"}, self.exported(self.volume))
        self.detach(row)
        self.driver.revert_to_snapshot(self.context, self.volume, kept)
        self.driver.delete_snapshot(kept)
        kept.destroy()
        self.migrate(GOLD)
        self.check_is_in("gold")
        self.driver.delete_volume(self.volume)
        self.assertIsNone(self.find_share(self.volume.id))

    def test_the_same_message_again(self):
        self.migrate()
        self.volume.host = GOLD
        self.volume.save()
        self.assertEqual([], self.migrate().generic)
        self.check_is_in("silver")

    @ddt.data(
        {"host": "ctl-1@other#silver"},
        {"host": "ctl-2@acme#silver"},
        {"location_info": "acmeNfsDriver:another"},
        {"location_info": None},
    )
    def test_another_back_end_or_appliance(self, given):
        """Cinder copies."""
        made = self.migrate(**given)
        self.assertEqual([self.volume.id], made.generic)
        self.assertEqual(0, self.log.total)

    def test_pool_that_cannot(self):
        engine = self.appliance.engines["silver"]
        able = engine.capabilities
        engine.capabilities = type(able)(copy_file=False)
        self.assertEqual([self.volume.id], self.migrate().generic)
        self.assertEqual(0, self.log.total)
        engine.capabilities = able
        capabilities = self.capabilities("silver")
        engine.capabilities = type(able)(copy_file=False)
        with mock.patch.object(
            self, "capabilities", lambda pool: capabilities
        ):
            self.assertEqual([self.volume.id], self.migrate().generic)
        self.check_is_in("gold")

    def test_attached(self):
        """Nova must take part: Cinder does not even ask."""
        self.attach(self.volume, base.connector("cmp-1"))
        self.assertEqual([self.volume.id], self.migrate().generic)
        self.assertEqual("gold", self.share(self.volume).pool)

    def test_leftover_rule_of_ours(self):
        row = self.attach(self.volume, base.connector("cmp-1"))
        row.destroy()
        self.migrate()
        self.check_is_in("silver")

    def test_errors_leave_it(self):
        engine = self.appliance.engines["silver"]
        engine.total_bytes = 0
        for words, error in (
            ("free bytes", exception.VolumeBackendAPIException),
        ):
            with self.assertRaisesRegex(error, words):
                self.migrate()
            self.volume = cinderdb.reloaded(self.volume)
            self.assertEqual("error", self.volume.migration_status)
            self.check_is_in("gold")


class SlowMoveTest(MoveCase):
    """The copy stands still until ``go`` is set."""

    driver_options = {"acme_api_deadline_seconds": 2}

    def setUp(self) -> None:
        super().setUp()
        self.go = threading.Event()
        self.addCleanup(self.go.set)
        engine = self.appliance.engines["silver"]
        opened = engine.open_file

        @contextlib.contextmanager
        def open_file(share_id: str, name: str, *, write: bool = False) -> Any:
            self.go.wait(120)
            with opened(share_id, name, write=write) as file:
                yield file

        engine.open_file = open_file

    def test_without_progress_it_is_cancelled(self):
        cancel = acme_client.Client.cancel_job

        def then_go_on(client: Any, job_id: str) -> Any:
            threading.Timer(0.2, self.go.set).start()
            return cancel(client, job_id)

        with mock.patch.object(acme_client.Client, "cancel_job", then_go_on):
            with self.assertRaisesRegex(
                exception.VolumeMigrationFailed, "stays where it is"
            ):
                self.migrate()
        self.volume = cinderdb.reloaded(self.volume)
        self.assertEqual("error", self.volume.migration_status)
        self.check_is_in("gold")

    def test_it_outlasts_a_deadline(self):
        get_job = acme_client.Client.get_job

        def then_go_on(client: Any, job_id: str) -> Any:
            self.go.set()
            return get_job(client, job_id)

        with mock.patch.object(acme_client.Client, "get_job", then_go_on):
            self.migrate()
        self.check_is_in("silver")

    def test_one_that_an_operator_cancels_is_not_begun_again(self):
        """Even between two requests of the driver."""
        get_job = acme_client.Client.get_job

        def cancelled(client: Any, job_id: str) -> Any:
            threading.Timer(0.2, self.go.set).start()
            client.cancel_job(job_id)
            return get_job(client, job_id)

        with mock.patch.object(acme_client.Client, "get_job", cancelled):
            with self.assertRaisesRegex(
                exception.VolumeMigrationFailed, "cancelled"
            ):
                self.migrate()
        self.volume = cinderdb.reloaded(self.volume)
        self.assertEqual("error", self.volume.migration_status)
        self.check_is_in("gold")
