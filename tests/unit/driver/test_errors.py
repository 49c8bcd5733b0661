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

"""The appliance's codes, and what Cinder is told."""

from types import SimpleNamespace
import unittest

from cinder import exception
import ddt
from os_brick import exception as brick_exception
from oslo_concurrency import processutils

from acme_cinder import errors
import acme_client
from acme_client import errors as client_errors

VOLUME = SimpleNamespace(id="v-id", name="volume-v", name_id="v-id")
SNAPSHOT = SimpleNamespace(
    id="s-id", name="snapshot-s", volume_id="v-id", volume=VOLUME
)


def problem(code, status):
    return client_errors.from_problem(
        {"code": code, "detail": "a detail"}, status=status
    )


@ddt.ddt
class TranslateTest(unittest.TestCase):
    @ddt.data(
        ("request.invalid", 400, exception.VolumeBackendAPIException),
        ("auth.invalid", 401, exception.VolumeBackendAPIException),
        ("auth.forbidden", 403, exception.VolumeBackendAPIException),
        ("share.not_found", 404, exception.VolumeNotFound),
        ("snapshot.not_found", 404, exception.SnapshotNotFound),
        ("pool.not_found", 404, exception.VolumeBackendAPIException),
        ("share.exists_mismatch", 409, exception.VolumeBackendAPIException),
        ("share.has_snapshots", 409, exception.VolumeIsBusy),
        ("share.in_use", 409, exception.VolumeIsBusy),
        ("snapshot.in_use", 409, exception.SnapshotIsBusy),
        ("share.shrink_refused", 409, exception.InvalidVolume),
        ("share.busy", 409, exception.VolumeIsBusy),
        ("job.in_progress", 409, exception.VolumeIsBusy),
        ("share.degraded", 409, exception.VolumeBackendAPIException),
        ("precondition.failed", 412, exception.VolumeBackendAPIException),
        ("rate.limited", 429, exception.VolumeBackendAPIException),
        ("internal", 500, exception.VolumeBackendAPIException),
        ("system.starting", 503, exception.VolumeBackendAPIException),
        ("pool.no_space", 507, exception.VolumeBackendAPIException),
        ("limit.bytes", 507, exception.VolumeBackendAPIException),
        ("limit.shares", 507, exception.VolumeBackendAPIException),
        ("limit.snapshots", 507, exception.SnapshotLimitReached),
        ("limit.unheard_of", 507, exception.VolumeBackendAPIException),
        ("unheard.of", 418, exception.VolumeBackendAPIException),
    )
    @ddt.unpack
    def test_codes(self, code, status, expected):
        thing = (
            {"snapshot": SNAPSHOT}
            if code.startswith("snapshot.")
            else {"volume": VOLUME}
        )
        with self.assertRaises(exception.CinderException) as caught:
            with errors.operation("Did", **thing):
                raise problem(code, status)
        self.assertIs(expected, type(caught.exception))
        self.assertIsNotNone(caught.exception.__cause__)

    @ddt.data("share.busy", "share.in_use", "snapshot.in_use")
    def test_a_snapshot_is_busy_whatever_is_in_the_way(self, code):
        """Cinder makes a snapshot available again for no other error."""
        with self.assertRaisesRegex(exception.SnapshotIsBusy, "snapshot-"):
            with errors.operation("Deleted", snapshot=SNAPSHOT):
                raise problem(code, 409)

    @ddt.data(
        acme_client.NotSent("no"),
        acme_client.OutcomeUnknown("no"),
        acme_client.ProtocolError("no"),
        errors.MountError("no"),
        errors.FileError("no"),
        OSError(5, "no"),
        TimeoutError("no"),
        processutils.ProcessExecutionError(stderr="no"),
        brick_exception.BrickException("no"),
        brick_exception.ExecutionTimeout(stderr="no"),
    )
    def test_everything_below_is_wrapped(self, error):
        """Around some calls Cinder catches nothing else."""
        with self.assertRaisesRegex(
            exception.VolumeBackendAPIException, "volume-v.*no"
        ):
            with errors.operation("Did", volume=VOLUME):
                raise error

    def test_cinders_own_go_through(self):
        error = exception.ImageUnacceptable(image_id="i", reason="r")
        with self.assertRaises(exception.ImageUnacceptable) as caught:
            with errors.operation("Did", volume=VOLUME):
                raise error
        self.assertIs(error, caught.exception)

    def test_a_bug_goes_through(self):
        """A typo must not look like an answer of the back end."""
        with self.assertRaises(AttributeError):
            with errors.operation("Did", volume=VOLUME):
                raise AttributeError("typo")

    def test_log(self):
        with self.assertLogs("acme_cinder.errors", "INFO") as logs:
            with errors.operation("Created", volume=VOLUME):
                pass
        self.assertRegex(
            logs.output[0],
            r"Created volume-v, share v-id, in \d+\.\d{3} s$",
        )
