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

"""Undo creations after errors."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import contextlib

from cinder import exception
from oslo_log import log as logging

from acme_cinder import errors
import acme_client

LOG = logging.getLogger(__name__)


@contextlib.contextmanager
def if_unsure(undo: Callable[[], None]) -> Iterator[None]:
    """Undo a failed creation that may have succeeded."""
    try:
        yield
    except acme_client.AlreadyExists:
        # It is not what this call would have created: keep it.
        raise
    except acme_client.ApiError as error:
        if error.may_have_been_applied:
            undo()
        raise


@contextlib.contextmanager
def left_on_error(name: str, id_: str) -> Iterator[None]:
    """For cleanup while another error is raised to the caller."""
    try:
        yield
    except (*errors.BELOW, exception.CinderException):
        LOG.exception(
            "%(name)s may be left on the appliance, with the id %(id)s",
            {"name": name, "id": id_},
        )
