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

"""Pages whose entries are as large as they can be."""

import itertools
import json
import tracemalloc
import uuid

import sqlalchemy as sa

from acme_appliance.db import models
from acme_appliance.service import pages
from tests.unit.appliance import case
from tests.unit.appliance import fixtures

SHARES = 120
HOLDERS = 256
CLIENTS = 64
#: All shares at once would take more than 140 MiB.
PEAK_BYTES = 80 << 20


class LargePagesTest(case.ServiceCase):
    def fill(self):
        """Shares with all the access rules that they can have."""
        ids = sorted(self.make_share() for _ in range(SHARES))
        clients = [f"2001:db8::{number:x}" for number in range(CLIENTS)]
        with self.fixture.database.write() as session:
            for id_ in ids:
                session.execute(
                    sa.insert(models.AccessRule),
                    [
                        {
                            "kind": "share",
                            "object_id": id_,
                            "holder": f"host-{number}",
                            "clients": clients,
                            "level": "rw",
                        }
                        for number in range(HOLDERS)
                    ],
                )
        return ids

    def read_pages(self):
        marker = None
        while True:
            page = self.fixture.service.shares.page(
                fixtures.CALLER, {}, 1000, marker
            )
            yield page.items
            marker = page.next_marker
            if marker is None:
                return

    def test_shares_with_many_rules(self):
        ids, found = self.fill(), []
        read = self.read_pages()
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        first = next(read)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        self.assertLess(peak, PEAK_BYTES)
        for items in itertools.chain([first], read):
            found += [item["id"] for item in items]
            one, all_ = len(json.dumps(items[0])), len(json.dumps(items))
            self.assertLess(all_, pages.MAX_PAGE_BYTES + 2 * one)
            for item in items:
                self.assertEqual(HOLDERS, len(item["access"]))
        self.assertEqual(ids, found)

    def test_events_with_much_detail(self):
        count = 300
        detail = {"snapshots": [str(uuid.uuid4()) for _ in range(1000)]}
        with self.fixture.database.write() as session:
            session.execute(
                sa.insert(models.Event),
                [
                    {
                        "time": self.fixture.clock(),
                        "type": "share.deleted",
                        "namespace": "a",
                        "share_id": fixtures.new_id(),
                        "actor": "a",
                        "request_id": "r",
                        "detail": detail,
                    }
                    for _ in range(count)
                ],
            )
        found, after = [], 0
        while True:
            part = self.fixture.service.events.read(
                fixtures.CALLER, after, 0, 1000
            )
            if not part["events"]:
                break
            size = len(json.dumps(part))
            self.assertLess(size, pages.MAX_PAGE_BYTES + (64 << 10))
            found += [event["seq"] for event in part["events"]]
            after = part["next_after"]
        self.assertEqual(list(range(1, count + 1)), found)

    def test_one_entry_may_be_larger_than_a_page(self):
        ids = sorted(self.make_share() for _ in range(3))
        original = pages.MAX_PAGE_BYTES
        pages.MAX_PAGE_BYTES = 1
        self.addCleanup(setattr, pages, "MAX_PAGE_BYTES", original)
        found = [[item["id"] for item in items] for items in self.read_pages()]
        self.assertEqual([[id_] for id_ in ids], found)
