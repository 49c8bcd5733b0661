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

"""QoS specs that the back end is to keep to."""

import dataclasses
import uuid

from cinder import exception
from cinder.volume import qos_specs
import ddt

import acme_client
from tests.harness import transports
from tests.unit.driver import base
from tests.unit.driver import cinderdb
from tests.unit.driver import test_retype

LIMITS = {
    "read_bytes_sec": "104857600",
    "write_bytes_sec": "52428800",
    "total_iops_sec": "500",
}
SENT = {
    "max_read_bytes_per_second": 104857600,
    "max_write_bytes_per_second": 52428800,
    "max_iops": 500,
}
NONE = dict.fromkeys(SENT)


def qos_type(specs, consumer="back-end"):
    made = test_retype.new_type()
    context = cinderdb.context()
    found = qos_specs.create(
        context, f"qos-{uuid.uuid4()}", {"consumer": consumer, **specs}
    )
    qos_specs.associate_qos_with_type(context, found.id, made.id)
    return made.id


class QosCase(test_retype.RetypeTestCase):
    def use_faults(self, *faults):
        """For the changes of shares from now on."""
        self.driver = self.new_driver(
            faults, matches=lambda request: request.method == "PATCH"
        )

    def limits(self, volume):
        return (self.share(volume).qos or acme_client.Qos()).to_json()


@ddt.ddt
class CreateTest(QosCase):
    features = ("share.qos_bandwidth", "share.qos_iops")

    @ddt.data("back-end", "both")
    def test_every_way_to_make_a_volume(self, consumer):
        type_id = qos_type(LIMITS, consumer)
        source = self.create()
        self.assertEqual(NONE, self.limits(source))
        snapshot = self.snapshot(source)
        for create, *origin in (
            (self.driver.create_volume,),
            (self.driver.create_cloned_volume, source),
            (self.driver.create_volume_from_snapshot, snapshot),
        ):
            volume = cinderdb.volume(volume_type_id=type_id)
            self.log.clear()
            create(volume, *origin)
            self.assertEqual(1, self.log.total)
            self.assertEqual(SENT, self.limits(volume))

    def test_some_of_them(self):
        volume = self.create(volume_type_id=qos_type({"total_iops_sec": "9"}))
        self.assertEqual({**NONE, "max_iops": 9}, self.limits(volume))

    def test_of_the_front_end(self):
        """They are none of ours, whatever they are."""
        type_id = qos_type({"read_iops_sec_max": "x"}, "front-end")
        volume = self.create(volume_type_id=type_id)
        self.assertEqual(NONE, self.limits(volume))

    @ddt.data(
        ({"maxIOPS": "500"}, "maxIOPS.*allowed: read_bytes_sec, write"),
        ({"total_bytes_sec": "500"}, "total_bytes_sec.*front-end"),
        ({"total_iops_sec": "0"}, "total_iops_sec=0; allowed: a whole"),
        ({"total_iops_sec": "-5"}, "=-5; allowed: a whole"),
        ({"read_bytes_sec": "10M"}, "=10M; allowed: a whole"),
        ({"read_bytes_sec": "1.5"}, "=1.5; allowed: a whole"),
    )
    @ddt.unpack
    def test_wrong(self, specs, words):
        volume = cinderdb.volume(volume_type_id=qos_type(specs))
        self.log.clear()
        with self.assertRaisesRegex(exception.InvalidVolumeType, words):
            self.driver.create_volume(volume)
        self.assertEqual(0, self.log.total)

    def test_the_scheduler_is_told(self):
        pools = self.driver.get_volume_stats(refresh=True)["pools"]
        self.assertEqual(
            [True, False], [pool["QoS_support"] for pool in pools]
        )


class WithoutFeatureTest(QosCase):
    features = ("share.qos_bandwidth",)

    def test_create(self):
        self.create(volume_type_id=qos_type({"read_bytes_sec": "5"}))
        volume = cinderdb.volume(
            volume_type_id=qos_type({"total_iops_sec": "5"})
        )
        with self.assertRaisesRegex(
            exception.InvalidVolumeType,
            "total_iops_sec.*share.qos_iops.*gold.*consumer=front-end",
        ):
            self.driver.create_volume(volume)

    def test_in_another_pool(self):
        volume = cinderdb.volume(
            host="ctl-1@acme#silver",
            volume_type_id=qos_type({"read_bytes_sec": "5"}),
        )
        with self.assertRaisesRegex(exception.InvalidVolumeType, "silver"):
            self.driver.create_volume(volume)

    def test_retype(self):
        volume = self.create()
        with self.assertRaisesRegex(
            exception.InvalidVolumeType, "consumer=front-end"
        ):
            self.retype(volume, qos_type({"total_iops_sec": "5"}))
        self.assertEqual(0, self.log.total)

    def test_of_the_front_end(self):
        volume = self.create()
        type_id = qos_type({"total_iops_sec": "5"}, "front-end")
        self.assertTrue(self.retype(volume, type_id))
        self.assertEqual(0, self.log.total)


class RetypeTest(QosCase):
    features = ("share.qos_bandwidth", "share.qos_iops")

    def test_set_changed_and_lifted(self):
        """While attached, and with a snapshot: it is one request."""
        volume = self.create()
        self.snapshot(volume)
        self.attach(volume, base.connector("cmp-1"))
        for specs, sent in (
            (LIMITS, SENT),
            ({"total_iops_sec": "9"}, {**NONE, "max_iops": 9}),
            ({}, NONE),
        ):
            type_id = qos_type(specs)
            self.assertIs(True, self.retype(volume, type_id))
            self.assertEqual(
                {"PATCH /v1/shares/{id}": 1}, dict(self.log.counts)
            )
            self.assertEqual(sent, self.limits(volume))
            volume.volume_type_id = type_id
            volume.save()

    def test_the_same_limits(self):
        volume = self.create(volume_type_id=qos_type(LIMITS))
        self.assertTrue(self.retype(volume, qos_type(LIMITS, "both")))
        self.assertEqual(0, self.log.total)

    def test_where_it_fails_the_old_limits_are_there(self):
        """Though it was done, as far as anybody knows."""
        volume = self.create(volume_type_id=qos_type({"total_iops_sec": "9"}))
        self.use_faults(
            dataclasses.replace(transports.garbage(), applied=True)
        )
        with self.assertRaises(exception.VolumeBackendAPIException):
            self.retype(volume, qos_type(LIMITS))
        self.assertEqual({"PATCH /v1/shares/{id}": 2}, dict(self.log.counts))
        self.assertEqual({**NONE, "max_iops": 9}, self.limits(volume))

    def test_where_that_fails_too(self):
        volume = self.create()
        self.use_faults(transports.garbage(), transports.garbage())
        with (
            self.assertRaises(exception.VolumeBackendAPIException),
            self.assertLogs("acme_cinder.retype", "ERROR") as logs,
        ):
            self.retype(volume, qos_type(LIMITS))
        self.assertIn(volume.name, logs.output[0])

    def test_a_lost_reply(self):
        volume = self.create()
        self.use_faults(transports.ReplyLost())
        self.assertTrue(self.retype(volume, qos_type(LIMITS)))
        self.assertEqual(SENT, self.limits(volume))

    def test_an_old_type_that_was_never_looked_at(self):
        volume = self.create()
        volume.volume_type_id = qos_type({"maxIOPS": "7"})
        volume.save()
        self.assertTrue(self.retype(volume, qos_type(LIMITS)))
        self.assertEqual(SENT, self.limits(volume))


del QosCase
