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

"""Everything that can be wrong with a set-up, one thing after the other."""

import contextlib
import datetime
import os
import pathlib
import socket
import unittest
from unittest import mock
import uuid

import ddt
from oslo_concurrency import processutils
from oslo_config import cfg
import trustme

from acme_appliance import tls
from acme_cinder import checks
from acme_cinder import exports
from acme_cinder import mount
from acme_cinder.checks import backend
from acme_cinder.checks import findings
from acme_cinder.checks import host
from acme_cinder.checks import trial
import acme_client
from tests.harness import inprocess
from tests.unit.driver import base

OK, WARNING, FAILED, UNCHECKED = findings.State


def _now():
    return datetime.datetime.now(datetime.UTC)


class CheckCase(base.DriverTestCase):
    #: QEMU's user is another one, and nothing here maps users as NFS does.
    driver_options = {"nas_secure_file_permissions": "false"}

    def setUp(self):
        super().setUp()
        server = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(server.close)
        self.nfs_port = server.getsockname()[1]
        self.fast_by = datetime.timedelta(0)

    def look(self, wanted=checks.ALL, cluster=None, **changes):
        """Run checks with other options; return all findings."""
        made = self.unready_driver(**changes)
        section = made.configuration
        mounts = mount.Mounts(
            base=self.base,
            backend="acme-1",
            root_helper="sudo",
            attempts=1,
            execute=self.host.execute,
            mount_table=self.host.table,
            sleep=lambda seconds: None,
        )
        real = backend.scene

        def scene(*args):
            found = real(*args)
            found.mounts = mounts
            found.nfs_port = self.nfs_port
            found.now = lambda: _now() + self.fast_by
            found.api = found.api.with_deadline(5)
            return found

        with mock.patch.object(backend, "scene", scene):
            return list(
                backend.check(section, "acme-1", "ctl-1@acme", cluster, wanted)
            )

    def states(self, found):
        """Check to its states, without those that are well."""
        wrong = {}
        for each in found:
            if each.state is not OK and each.check != "user":
                wrong.setdefault(each.check, set()).add(each.state)
        return wrong

    def assert_failed(self, found, check, *words):
        [failed] = [
            each
            for each in found
            if each.check == check and each.state is FAILED
        ]
        for word in words:
            self.assertIn(word, str(failed))
        self.assertTrue(failed.remedy, failed)

    def assert_nothing_left(self):
        self.assertEqual([], list(self.driver._api.list_shares()))
        self.assert_unmounted()


@ddt.ddt
class ChecksTest(CheckCase):
    def test_all_is_well(self):
        found = self.look()
        self.assertEqual({}, self.states(found), "\n".join(map(str, found)))
        names = {"options", *(check.name for check in checks.ALL)}
        self.assertEqual(names, {each.check for each in found})
        self.assert_nothing_left()

    def test_the_start_has_no_check_of_its_own(self):
        self.assertEqual(set(), {*checks.AT_START} - {*checks.ALL})

    def test_needs_are_checks_before(self):
        seen = {backend.OPTIONS}
        for check in checks.ALL:
            self.assertEqual(set(), {*check.needs} - seen, check.name)
            seen.add(check.name)

    def test_all_options_and_what_depends_on_none(self):
        found = self.look(acme_api_addresses=[], acme_pools=["a", "a"])
        options = [
            each.text
            for each in found
            if each.check == "options" and each.state is FAILED
        ]
        self.assertEqual(2, len(options), options)
        unchecked = [each for each in found if each.state is UNCHECKED]
        self.assertEqual(
            {"not checked: because options failed"},
            {each.text for each in unchecked},
        )
        checked = {each.check for each in found if each.state is OK}
        self.assertLessEqual({"programs", "database", "locks"}, checked)

    def test_an_option_of_other_drivers(self):
        found = self.look(san_ip="192.0.2.9")
        self.assertEqual({"options": {WARNING}}, self.states(found))

    def test_a_name_that_nobody_knows(self):
        port = self.appliance.port
        found = self.look(
            acme_api_addresses=[
                f"https://no-such-host.invalid:{port}",
                self.appliance.url,
            ]
        )
        self.assert_failed(found, "names", "no-such-host.invalid")
        states = self.states(found)
        self.assertEqual({UNCHECKED}, states["connection"])
        self.assertNotIn("credential", states)
        self.assertNotIn("mount", states)
        self.assert_nothing_left()

    def test_nobody_listens(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        found = self.look(acme_api_addresses=[f"https://127.0.0.1:{port}"])
        self.assert_failed(found, "connection", str(port), "firewall")
        states = self.states(found)
        self.assertEqual({UNCHECKED}, states["mount"])
        self.assertEqual(
            "not checked: because connection failed",
            next(each.text for each in found if each.check == "mount"),
        )

    def test_a_ca_of_somebody_else(self):
        path = f"{self.directory}/ca.crt"
        trustme.CA().cert_pem.write_to_path(path)
        found = self.look(acme_api_ca_file=path)
        self.assert_failed(found, "tls", "acme_api_ca_file", path)
        self.assertEqual({UNCHECKED}, self.states(found)["credential"])

    def test_a_port_without_tls(self):
        plain = inprocess.RunningAppliance(https=False).start()
        self.addCleanup(plain.stop)
        url = plain.url.replace("http:", "https:")
        found = self.look(acme_api_addresses=[url])
        self.assert_failed(found, "tls", "does not speak TLS")

    def served(self, certificate, ca):
        """An appliance with a certificate of a CA."""
        folder = pathlib.Path(self.directory)
        ca.cert_pem.write_to_path(folder / "ca.crt")
        parts = [*certificate.cert_chain_pems]
        made = tls.Certificate(
            folder / "one.crt", folder / "one.key", (), _now(), "unused"
        )
        made.certificate_file.write_bytes(b"".join(p.bytes() for p in parts))
        certificate.private_key_pem.write_to_path(made.key_file)
        with (
            mock.patch.object(inprocess, "_shared_certificate", lambda: made),
            mock.patch.object(
                inprocess, "_shared_context", lambda: tls.server_context(made)
            ),
        ):
            running = self.start_appliance()
        return self.look(
            acme_api_addresses=[running.url],
            acme_api_token=running.token,
            acme_api_ca_file=f"{folder}/ca.crt",
        )

    def test_a_certificate_of_another_name(self):
        ca = trustme.CA()
        found = self.served(ca.issue_cert("appliance.example.org"), ca)
        self.assert_failed(found, "tls", "acme_api_addresses", "127.0.0.1")

    def test_a_certificate_that_has_expired(self):
        ca = trustme.CA()
        ended = _now() - datetime.timedelta(1)
        found = self.served(ca.issue_cert("127.0.0.1", not_after=ended), ca)
        self.assert_failed(found, "tls", "expired", "renew")

    def test_a_certificate_that_expires_soon(self):
        ca = trustme.CA()
        soon = _now() + datetime.timedelta(9)
        found = self.served(ca.issue_cert("127.0.0.1", not_after=soon), ca)
        self.assertEqual({WARNING}, self.states(found)["tls"])

    def test_a_wrong_token(self):
        found = self.look(acme_api_token="acme_" + "x" * 43)
        self.assert_failed(found, "credential", "acme_api_token", "token")
        self.assertNotIn("api", self.states(found))
        self.assertEqual({UNCHECKED}, self.states(found)["mount"])

    def test_a_token_that_may_change_nothing(self):
        token = self.appliance.make_token("metrics")
        found = self.look(acme_api_token=token)
        self.assert_failed(found, "credential", "driver:NAMESPACE")
        states = self.states(found)
        self.assertNotIn("pools", states)
        self.assertEqual({UNCHECKED}, states["mount"])

    def test_pools_and_portal_at_once(self):
        found = self.look(acme_pools=["lead"], acme_nfs_portal="192.0.2.77")
        self.assert_failed(found, "pools", "gold", "lead")
        [portal] = [
            each
            for each in found
            if each.check == "portal" and each.state is FAILED
        ]
        self.assertIn("acme_nfs_portal", portal.text)
        self.assertEqual({UNCHECKED}, self.states(found)["nfs-port"])

    def test_clocks_that_differ(self):
        self.fast_by = datetime.timedelta(minutes=20)
        self.assert_failed(self.look(), "clock", "differ by 1", "NTP")

    def test_an_nfs_version_that_is_not_served(self):
        found = self.look(nfs_mount_options="vers=2")
        self.assert_failed(found, "nfs-versions", "nfs_mount_options")

    def test_a_closed_nfs_port(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        found = self.look(nfs_mount_options=f"port={port}")
        self.assert_failed(found, "nfs-port", str(port), "firewalls")
        self.assertEqual({UNCHECKED}, self.states(found)["mount"])

    def test_volumes_that_the_appliance_does_not_know(self):
        self.create()
        found = self.look(
            acme_api_token=self.appliance.make_token("driver", "cinder-b")
        )
        self.assert_failed(found, "volumes", "namespace")

    def test_a_database_that_does_not_answer(self):
        from cinder.db import api as db
        from oslo_db import exception as db_exception

        error = db_exception.DBConnectionError("refused\n[SQL: SELECT]")
        with mock.patch.object(
            db, "volume_get_all", autospec=True, side_effect=error
        ):
            found = self.look()
        self.assert_failed(found, "database", "refused", "connection")
        self.assertEqual({UNCHECKED}, self.states(found)["volumes"])

    @ddt.data(
        ("file:///tmp/locks", "all of its hosts"),
        ("etcd3+http://127.0.0.1:1", "etcd3+http"),
    )
    @ddt.unpack
    def test_locks_of_a_cluster(self, url, said):
        cfg.CONF.set_override("backend_url", url, "coordination")
        self.addCleanup(cfg.CONF.clear_override, "backend_url", "coordination")
        found = self.look(cluster="blue@acme")
        self.assert_failed(found, "locks", "backend_url", said)

    def test_programs_that_are_not_there(self):
        with mock.patch.object(host, "_find", lambda program: None):
            found = self.look()
        self.assert_failed(found, "mount.nfs", "nfs-common")
        self.assert_failed(found, "programs", "qemu-img")
        self.assertEqual({UNCHECKED}, self.states(found)["mount"])

    def test_a_base_that_cannot_be_made(self):
        pathlib.Path(f"{self.directory}/file").touch()
        found = self.look(nfs_mount_point_base=f"{self.directory}/file/mnt")
        self.assert_failed(found, "mount-point-base", "nfs_mount_point_base")

    def test_a_check_that_breaks_off(self):
        def broken(scene):
            yield findings.ok("so far")
            raise RuntimeError("a defect")

        found = self.look([findings.Check("broken", broken), host.PROGRAMS])
        self.assert_failed(found, "broken", "RuntimeError: a defect")
        self.assertEqual("programs", found[-1].check)

    def test_secrets_are_in_no_finding(self):
        token = "acme_" + "x" * 43
        self.assertNotIn(token, str(self.look(acme_api_token=token)))


@ddt.ddt
class TrialTest(CheckCase):
    """The share that is made, used and removed."""

    def mount_findings(self, **changes):
        return [each for each in self.look(**changes) if each.check == "mount"]

    def test_its_name_and_label(self):
        seen = []
        self.host.failures["mount"] = [Seen(self, seen)]
        self.mount_findings()
        [share] = seen
        self.assertRegex(share.name, "^acme-cinder-check-")
        self.assertIn(trial.LABEL, share.labels)
        self.assert_nothing_left()

    def test_a_mount_that_is_refused(self):
        self.host.failures["mount"] = [
            processutils.ProcessExecutionError(
                exit_code=32, stderr="access denied by server"
            )
        ]
        [found] = self.mount_findings()
        self.assertIs(FAILED, found.state)
        self.assertIn("access denied", found.text)
        self.assertIn("acme_client_networks", found.remedy)
        self.assert_nothing_left()

    def test_a_file_that_cannot_be_written(self):
        self.host.failures["dd"] = [
            processutils.ProcessExecutionError(
                exit_code=1, stderr="Permission denied"
            )
        ]
        found = self.mount_findings()
        self.assertEqual(
            [OK, FAILED, OK], [each.state for each in found], found
        )
        self.assertIn("Permission denied", found[1].text)
        self.assert_nothing_left()

    def test_a_file_that_qemu_may_not_open(self):
        self.host.failures["env"] = [
            processutils.ProcessExecutionError(
                exit_code=1, stderr="Permission denied"
            )
        ]
        found = self.mount_findings()
        self.assertEqual(
            [OK, OK, FAILED], [each.state for each in found], found
        )
        self.assertIn("QEMU", found[2].text)
        self.assert_nothing_left()

    @unittest.skipUnless(os.geteuid() == 0, "only root becomes others")
    def test_qemus_user_is_really_another_one(self):
        found = self.mount_findings(nas_secure_file_permissions="true")
        self.assertIs(FAILED, found[2].state, found)
        self.assertIn("Permission denied", found[2].text)

    def test_no_space(self):
        error = acme_client.NoSpace("full", code="pool.no_space", status=507)
        with mock.patch.object(
            acme_client.Client,
            "create_share",
            autospec=True,
            side_effect=error,
        ):
            [found] = self.mount_findings()
        self.assertIs(FAILED, found.state)
        self.assertIn("pool.no_space", found.text)

    def test_what_a_killed_check_has_left_is_removed(self):
        with (
            mock.patch.object(trial, "_removed", lambda *args: ()),
            mock.patch.object(
                exports,
                "choose",
                autospec=True,
                side_effect=KeyboardInterrupt,
            ),
            contextlib.suppress(KeyboardInterrupt),
        ):
            self.look()
        self.assertEqual(1, len(list(self.driver._api.list_shares())))
        self.assertEqual({}, self.states(self.look()))
        self.assert_nothing_left()

    def test_the_share_of_a_check_that_runs_stays(self):
        made = self.driver._api.create_share(
            str(uuid.uuid4()),
            name="acme-cinder-check-other",
            size_bytes=base.GIB,
            labels={trial.LABEL: f"{socket.gethostname()}:{self.base}"},
        )
        with self.driver._mounts.at_work(f"check-{made.id}"):
            self.mount_findings()
            self.assertIsNotNone(self.find_share(made.id))
        self.mount_findings()
        self.assert_nothing_left()

    def test_several_pools(self):
        self.appliance = self.start_appliance_with_pools()
        found = self.mount_findings(
            acme_api_addresses=[self.appliance.url],
            acme_api_token=self.appliance.token,
            acme_api_ca_file=self.appliance.ca_file,
        )
        text = " ".join(each.text for each in found)
        for pool in ("gold", "silver"):
            self.assertIn(f"pool {pool}: written and read", text)

    def start_appliance_with_pools(self):
        running = inprocess.RunningAppliance(
            pools=("gold", "silver"), portals=["127.0.0.1"]
        ).start()
        self.addCleanup(running.stop)
        self.host._appliance = running
        return running


class MinimalTest(base.WithoutVolumeFile, CheckCase):
    def test_all_is_well(self):
        found = self.look()
        self.assertEqual({}, self.states(found), "\n".join(map(str, found)))
        self.assert_nothing_left()


class Seen(processutils.ProcessExecutionError):
    """A failure that looks at the shares when it is raised."""

    def __init__(self, case, seen):
        super().__init__(exit_code=32, stderr="not now")
        self._case, self._seen = case, seen

    @property
    def stderr(self):
        shares = list(self._case.driver._api.list_shares())
        self._seen[:] = shares or self._seen
        return "not now"

    @stderr.setter
    def stderr(self, value):
        pass
