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

"""A REST client of the NFS appliance, independent of Cinder.

The names in this module are the public interface; the other modules are
private.
"""

from acme_client.about import System
from acme_client.about import Versions
from acme_client.checks import check_verify
from acme_client.client import Client
from acme_client.credentials import BasicLogin
from acme_client.credentials import BearerToken
from acme_client.endpoints import normalise as parse_address
from acme_client.errors import AlreadyExists
from acme_client.errors import ApiError
from acme_client.errors import AuthenticationFailed
from acme_client.errors import BadRequest
from acme_client.errors import Busy
from acme_client.errors import ConfigurationError
from acme_client.errors import Conflict
from acme_client.errors import Degraded
from acme_client.errors import FieldError
from acme_client.errors import Forbidden
from acme_client.errors import HasSnapshots
from acme_client.errors import InternalError
from acme_client.errors import InUse
from acme_client.errors import InvalidArgument
from acme_client.errors import JobFailed
from acme_client.errors import JobUnfinished
from acme_client.errors import LimitReached
from acme_client.errors import NoSpace
from acme_client.errors import NotFound
from acme_client.errors import NotSent
from acme_client.errors import OutcomeUnknown
from acme_client.errors import PreconditionFailed
from acme_client.errors import ProblemError
from acme_client.errors import ProtocolError
from acme_client.errors import RateLimited
from acme_client.errors import SharesLeft
from acme_client.errors import ShrinkRefused
from acme_client.errors import TlsError
from acme_client.errors import TransportError
from acme_client.errors import Unavailable
from acme_client.errors import Unsupported
from acme_client.errors import WrongState
from acme_client.groupmodels import Group
from acme_client.groupmodels import GroupShareSpec
from acme_client.groupmodels import GroupSnapshot
from acme_client.groupmodels import GroupSource
from acme_client.groupmodels import Moment
from acme_client.groupmodels import SnapshotSpec
from acme_client.models import AccessRule
from acme_client.models import ExportLocation
from acme_client.models import GrantedAccess
from acme_client.models import GrantedSnapshotAccess
from acme_client.models import Job
from acme_client.models import OwnToken
from acme_client.models import Pool
from acme_client.models import Progress
from acme_client.models import Qos
from acme_client.models import Share
from acme_client.models import Snapshot
from acme_client.models import Source
from acme_client.models import Stats
from acme_client.models import VolumeFile
from acme_client.models import VolumeFileSpec
from acme_client.timing import at_most
from acme_client.timing import limited
from acme_client.timing import limited_to_share

__all__ = (
    "AccessRule",
    "AlreadyExists",
    "ApiError",
    "AuthenticationFailed",
    "BadRequest",
    "BasicLogin",
    "BearerToken",
    "Busy",
    "Client",
    "ConfigurationError",
    "Conflict",
    "Degraded",
    "ExportLocation",
    "FieldError",
    "Forbidden",
    "GrantedAccess",
    "GrantedSnapshotAccess",
    "Group",
    "GroupShareSpec",
    "GroupSnapshot",
    "GroupSource",
    "HasSnapshots",
    "InUse",
    "InternalError",
    "InvalidArgument",
    "Job",
    "JobFailed",
    "JobUnfinished",
    "LimitReached",
    "Moment",
    "NoSpace",
    "NotFound",
    "NotSent",
    "OutcomeUnknown",
    "OwnToken",
    "Pool",
    "PreconditionFailed",
    "ProblemError",
    "Progress",
    "ProtocolError",
    "Qos",
    "RateLimited",
    "Share",
    "SharesLeft",
    "ShrinkRefused",
    "Snapshot",
    "SnapshotSpec",
    "Source",
    "Stats",
    "System",
    "TlsError",
    "TransportError",
    "Unavailable",
    "Unsupported",
    "Versions",
    "VolumeFile",
    "VolumeFileSpec",
    "WrongState",
    "at_most",
    "check_verify",
    "limited",
    "limited_to_share",
    "parse_address",
)
