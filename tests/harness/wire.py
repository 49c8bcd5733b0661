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

"""Serialize messages between Cinder's services, as a broker does.

oslo.messaging's in-memory transport delivers the sent objects themselves, but
Cinder's code expects plain ones: ``cinder get-pools --detail`` copies a dict
that is not one before it is serialized.
"""

from typing import Any

from cinder import rpc
from oslo_serialization import jsonutils


class WireSerializer(rpc.RequestContextSerializer):
    """Converts everything to JSON and back, as the drivers for brokers do
    (oslo_messaging/_drivers/common.py, ``serialize_msg``)."""

    def serialize_entity(self, context: Any, entity: Any) -> Any:
        sent = super().serialize_entity(context, entity)
        return jsonutils.loads(jsonutils.dumps(sent))


def install() -> None:
    """Call this before ``cinder.rpc.init``."""
    rpc.RequestContextSerializer = WireSerializer
