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

"""Create, export and delete a share. Needs ACME_URL, ACME_TOKEN and, unless
the system trusts the certificate, ACME_CA_FILE."""

import os
import uuid

import acme_client

GIB = 1024**3


def main() -> None:
    token = acme_client.BearerToken(os.environ["ACME_TOKEN"])
    verify = os.environ.get("ACME_CA_FILE", True)
    with acme_client.Client(
        [os.environ["ACME_URL"]], token, verify=verify, deadline_seconds=60
    ) as client:
        # The caller chooses the id, so a create whose reply was lost can be
        # sent again and returns the same share.
        share_id = str(uuid.uuid4())
        share = client.create_share(share_id, name="example", size_bytes=GIB)
        print(f"created {share.id} in pool {share.pool}")
        try:
            granted = client.grant_access(
                share_id, "example-host", ["192.0.2.7"], "rw"
            )
            for location in granted.export_locations:
                print(f"mount {location.address}:{location.path}")
            client.revoke_access(share_id, "example-host")
        finally:
            client.delete_share(share_id)
        print(f"deleted {share_id}")


if __name__ == "__main__":
    try:
        main()
    except acme_client.ApiError as error:
        raise SystemExit(f"error: {error}") from error
