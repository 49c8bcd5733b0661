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

"""Extra specs, and what of a type changes without a copy."""

import unittest.mock
import uuid

from cinder import exception
from cinder import objects
from cinder.volume import volume_types
import ddt

from acme_appliance.storage import pools
from tests.unit.driver import base
from tests.unit.driver import cinderdb
from tests.unit.driver import test_migration

#: What the tests give to a pool, or not.
OPTIONAL = {"share.thick", "share.qos_bandwidth", "share.qos_iops"}


def new_type(**extra_specs: str) -> objects.VolumeType:
    """Keys have ``__`` for the colon."""
    context = cinderdb.context()
    made = volume_types.create(
        context,
        f"type-{uuid.uuid4()}",
        {key.replace("__", ":"): value for key, value in extra_specs.items()},
    )
    return objects.VolumeType.get_by_id(context, made["id"])


class TypesCase(base.DriverTestCase):
    appliance_options = {"pools": ["gold", "silver"]}
    #: What gold announces of this; silver announces nothing of it.
    features: tuple[str, ...] = ()

    def start_appliance(self):
        real = pools.Pools.features

        def features(of, pool):
            more = self.features if pool == "gold" else ()
            return sorted({*real(of, pool)} - OPTIONAL | {*more})

        patch = unittest.mock.patch.object(pools.Pools, "features", features)
        patch.start()
        self.addCleanup(patch.stop)
        return super().start_appliance()

    def make(self, **extra_specs):
        return self.create(volume_type_id=new_type(**extra_specs).id)

    def allocation(self, volume):
        return self.share(volume).file.allocation

    def assert_refused(self, words, **extra_specs):
        """With every way to make a volume; nothing is left or sent."""
        type_id = new_type(**extra_specs).id
        source = self.create()
        snapshot = self.snapshot(source)
        self.log.clear()
        for create, *origin in (
            (self.driver.create_volume,),
            (self.driver.create_cloned_volume, source),
            (self.driver.create_volume_from_snapshot, snapshot),
        ):
            volume = cinderdb.volume(volume_type_id=type_id)
            with self.assertRaisesRegex(exception.InvalidVolumeType, words):
                create(volume, *origin)
            self.assertEqual(0, self.log.total)
            self.assertIsNone(self.find_share(volume.id))


class ExtraSpecsTest(TypesCase):
    def test_other_keys(self):
        volume = self.make(
            volume_backend_name="acme-1",
            multiattach="<is> True",
            netapp__thin_provisioned="true",
            acmeplus__provisioning="?",
        )
        self.assertEqual("sparse", self.allocation(volume))

    def test_a_wrong_key(self):
        self.assert_refused(
            "acme:provision,.*allowed: acme:provisioning$",
            acme__provision="thin",
        )

    def test_a_key_written_otherwise(self):
        self.assert_refused("ACME:provisioning", ACME__provisioning="thin")

    def test_a_wrong_value(self):
        self.assert_refused(
            "acme:provisioning=Thin; allowed: thin, thick$",
            acme__provisioning="Thin",
        )

    def test_thin(self):
        volume = self.make(acme__provisioning="thin")
        self.assertEqual("sparse", self.allocation(volume))

    def test_thick_where_it_is_not_possible(self):
        self.assert_refused(
            "acme:provisioning=thick.*share.thick.*gold.*allowed there: thin",
            acme__provisioning="thick",
        )

    def test_thin_where_all_others_are_thick(self):
        self.driver = self.new_driver(nfs_sparsed_volumes=False)
        self.assertEqual("full", self.allocation(self.make()))
        thick = self.make(acme__provisioning="thick")
        self.assertEqual("full", self.allocation(thick))
        thin = self.make(acme__provisioning="thin")
        self.assertEqual("sparse", self.allocation(thin))

    def test_requests(self):
        volume = cinderdb.volume(
            volume_type_id=new_type(acme__provisioning="thin").id
        )
        self.log.clear()
        self.driver.create_volume(volume)
        self.assertEqual({"PUT /v1/shares/{id}": 1}, dict(self.log.counts))

    def properties(self):
        self.driver.init_capabilities()
        return self.driver.capabilities["properties"]["acme:provisioning"]

    def test_what_is_published(self):
        found = self.properties()
        self.assertEqual("string", found["type"])
        self.assertEqual(["thin"], found["enum"])
        self.assertEqual("thin", found["default"])
        self.driver = self.new_driver(nfs_sparsed_volumes=False)
        self.assertEqual(["thick", "thin"], self.properties()["enum"])


class ThickTest(TypesCase):
    """One of the pools makes thick volumes beside thin ones."""

    features = ("share.thick",)

    def test_by_type(self):
        thick = self.make(acme__provisioning="thick")
        self.assertEqual("full", self.allocation(thick))
        self.assertEqual("sparse", self.allocation(self.make()))

    def test_only_in_that_pool(self):
        volume = cinderdb.volume(
            host="ctl-1@acme#silver",
            volume_type_id=new_type(acme__provisioning="thick").id,
        )
        with self.assertRaisesRegex(exception.InvalidVolumeType, "silver"):
            self.driver.create_volume(volume)

    def test_what_is_published(self):
        self.driver.init_capabilities()
        found = self.driver.capabilities
        choice = found["properties"]["acme:provisioning"]
        self.assertEqual(["thin", "thick"], choice["enum"])
        self.assertEqual(
            [True, False],
            [pool["thick_provisioning_support"] for pool in found["pools"]],
        )

    def test_clone(self):
        """It is as its own type says, and not as its origin is."""
        source = self.make()
        thick = cinderdb.volume(
            volume_type_id=new_type(acme__provisioning="thick").id
        )
        self.driver.create_cloned_volume(thick, source)
        self.assertEqual("full", self.allocation(thick))


class MinimalVendorTest(base.WithoutVolumeFile, TypesCase):
    def test_only_what_all_get(self):
        self.make(acme__provisioning="thin")
        self.assert_refused("share.thick", acme__provisioning="thick")
        self.driver = self.new_driver(nfs_sparsed_volumes=False)
        self.assert_refused("share.volume_file", acme__provisioning="thin")


class RetypeTestCase(TypesCase):
    def retype(self, volume, type_id, host=None):
        """As the manager does, where it asks the driver at all."""
        found = cinderdb.reloaded(volume)
        diff, equal = volume_types.volume_types_diff(
            self.context, found.volume_type_id, type_id
        )
        self.assertFalse(equal)
        self.log.clear()
        return self.driver.retype(
            self.context,
            found,
            objects.VolumeType.get_by_id(self.context, type_id),
            diff,
            {"host": host or found.host, "cluster_name": None},
        )


@ddt.ddt
class RetypeTest(RetypeTestCase):
    features = ("share.thick",)

    @ddt.data(
        ({}, {"multiattach": "<is> True"}),
        ({"multiattach": "<is> True"}, {}),
        (
            {"volume_backend_name": "acme-1"},
            {"volume_backend_name": "acme-1", "pool_name": "gold"},
        ),
        ({}, {"capabilities__thin_provisioning_support": "<is> True"}),
        ({}, {"acme__provisioning": "thin"}),
        ({"acme__provisioning": "thin"}, {"multiattach": "<is> True"}),
        ({"acme__provisioning": "fat"}, {"multiattach": "<is> True"}),
    )
    @ddt.unpack
    def test_nothing_for_the_storage(self, old, new):
        volume = self.create()
        volume.volume_type_id = new_type(**old).id
        volume.save()
        self.assertIs(True, self.retype(volume, new_type(**new).id))
        self.assertEqual(0, self.log.total)

    def test_attached_and_with_snapshots(self):
        volume = self.make()
        self.snapshot(volume)
        self.attach(volume, base.connector("cmp-1"))
        self.assertTrue(self.retype(volume, new_type(description="faster").id))
        self.assertEqual(0, self.log.total)
        self.assertEqual({"192.0.2.51": "rw"}, self.exported(volume))

    @ddt.data(("thin", "thick"), ("thick", "thin"))
    @ddt.unpack
    def test_provisioning_is_changed_by_a_copy(self, old, new):
        volume = self.make(acme__provisioning=old)
        before = self.allocation(volume)
        self.assertIs(
            False, self.retype(volume, new_type(acme__provisioning=new).id)
        )
        self.assertEqual(before, self.allocation(volume))

    def test_another_pool(self):
        volume = self.make()
        self.assertIs(
            False,
            self.retype(
                volume,
                new_type(pool_name="silver").id,
                host="ctl-1@acme#silver",
            ),
        )

    @ddt.data((None, 256), (256, None), (256, 512))
    @ddt.unpack
    def test_encryption(self, old, new):
        """Cinder does not even ask; before_volume_copy refuses the copy."""
        volume = self.create(volume_type_id=test_migration.volume_type(old))
        self.assertIs(
            False, self.retype(volume, test_migration.volume_type(new))
        )

    @ddt.data({"acme__provisioning": "fat"}, {"acme__qos": "1"})
    def test_a_wrong_type(self, extra_specs):
        volume = self.make()
        with self.assertRaisesRegex(exception.InvalidVolumeType, "allowed"):
            self.retype(volume, new_type(**extra_specs).id)
        self.assertEqual(0, self.log.total)

    def test_thick_where_it_is_not_possible(self):
        volume = self.create(host="ctl-1@acme#silver")
        with self.assertRaisesRegex(
            exception.InvalidVolumeType, "share.thick"
        ):
            self.retype(volume, new_type(acme__provisioning="thick").id)


del TypesCase
