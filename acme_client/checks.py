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

"""Validation and defaults of a client's arguments."""

from collections.abc import Callable
import math
import os
import ssl

from oslo_log import log as logging
import requests.adapters

from acme_client import bounded
from acme_client import errors

LOG = logging.getLogger(__name__)


def check_verify(verify: bool | str, ca_option: str) -> None:
    """:raises ConfigurationError: no CA can be read from there."""
    if isinstance(verify, bool):
        if not verify:
            LOG.warning(
                "TLS certificates of the appliance are not verified: "
                "anyone on the network can read the API token. Set %s.",
                ca_option,
            )
        return
    is_directory = os.path.isdir(verify)
    try:
        ssl.create_default_context(
            cafile=None if is_directory else verify,
            capath=verify if is_directory else None,
        )
    except (OSError, ValueError) as exc:
        raise errors.ConfigurationError(
            f"{ca_option}: no CA certificate can be read from {verify!r}: "
            f"{exc}"
        ) from exc


def system_cas() -> str:
    """The file or directory with the CAs that this system trusts.

    By default requests uses those of certifi or of environment variables,
    which lack an operator's own CA.
    """
    paths = ssl.get_default_verify_paths()
    if os.path.isfile(paths.openssl_cafile):
        return paths.openssl_cafile
    return paths.openssl_capath


def check_seconds(**values: float) -> None:
    """:raises ConfigurationError: one is not a positive, finite number."""
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise errors.ConfigurationError(
                f"{name} is {value!r}; a number of seconds above 0 is needed"
            )


def adapter_factory(
    address_count: int, pool_size: int
) -> Callable[[], requests.adapters.HTTPAdapter]:
    """Adapters that keep connections and leave retrying to us."""
    return lambda: bounded.Adapter(
        pool_connections=address_count,
        pool_maxsize=pool_size,
        max_retries=0,
    )
