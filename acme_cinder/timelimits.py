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

"""Time limits for calls from Cinder.

Cinder waits a limited time for a call. After that it reports an error to the
user and keeps its records. So a call must not change anything later.
"""

import contextlib

from oslo_config import cfg

import acme_client

#: oslo.messaging's default, if no RPC client has registered the option.
_RPC_SECONDS = 60.0
#: Time is also needed for the message queue before the call, and for
#: Cinder's database after it.
_SHARE_OF_CALL = 0.8
#: Cinder's manager calls remove_export after other calls in the same RPC.
_SHARE_OF_CLEANUP = 0.1


def rpc_seconds() -> float:
    """``rpc_response_timeout``, after which Cinder stops waiting."""
    try:
        return float(cfg.CONF.rpc_response_timeout)
    except cfg.NoSuchOptError:
        return _RPC_SECONDS


def of_call() -> contextlib.AbstractContextManager[None]:
    """The limit for the main work of a call."""
    return acme_client.limited(rpc_seconds() * _SHARE_OF_CALL)


def of_cleanup() -> contextlib.AbstractContextManager[None]:
    """The limit for work that can also be done later."""
    return acme_client.limited(rpc_seconds() * _SHARE_OF_CLEANUP)
