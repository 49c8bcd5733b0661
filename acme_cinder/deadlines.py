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

"""How long Cinder waits for a call, and what we may take of that.

A call that ends later changes what nobody waits for any more: Cinder has told
its user that it failed, and has kept its records as they were.
"""

import contextlib

from oslo_config import cfg

import acme_client

#: oslo.messaging's default, where nothing has made an RPC client here.
_RPC_SECONDS = 60.0
#: The message waits in a queue before the call, and Cinder writes to its
#: database after it.
_SHARE_OF_CALL = 0.8
#: Cinder's manager has remove_export follow other calls, in the same RPC.
_SHARE_OF_CLEANUP = 0.1


def rpc_seconds() -> float:
    """``rpc_response_timeout``, after which Cinder gives up on us."""
    try:
        return float(cfg.CONF.rpc_response_timeout)
    except cfg.NoSuchOptError:
        return _RPC_SECONDS


def of_call() -> contextlib.AbstractContextManager[None]:
    """For what a call is about."""
    return acme_client.limited(rpc_seconds() * _SHARE_OF_CALL)


def of_cleanup() -> contextlib.AbstractContextManager[None]:
    """For what can be done later as well."""
    return acme_client.limited(rpc_seconds() * _SHARE_OF_CLEANUP)
