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
"""Calls that come while a pass is at work are served by the next, together."""

from collections.abc import Callable
import dataclasses
import threading
from typing import Generic
from typing import TypeVar

T = TypeVar("T")

#: Processes a batch; returns an error or None per item, in order.
Work = Callable[[list[T]], list[Exception | None]]


@dataclasses.dataclass(eq=False)
class _Entry(Generic[T]):
    item: T
    served: bool = False
    error: BaseException | None = None


class Passes(Generic[T]):
    """Processes items in batches: one pass at a time, for all waiting
    callers.

    An item is processed by a pass that began after the call. A caller that
    finds no running pass runs the next one. It runs only the pass with its own
    item, so no caller works for later ones.
    """

    def __init__(self, work: Work[T]) -> None:
        self._work = work
        self._changed = threading.Condition()
        self._waiting: list[_Entry[T]] = []
        self._at_work = False

    def serve(self, item: T) -> None:
        """Return when the item is processed.

        :raises Exception: the item's own error, or the error of the whole
            pass, which all of its callers get.
        """
        entry = _Entry(item)
        with self._changed:
            self._waiting.append(entry)
            self._changed.wait_for(lambda: entry.served or not self._at_work)
            if not entry.served:
                self._at_work = True
                batch, self._waiting = self._waiting, []
        if not entry.served:
            self._lead(batch)
        if entry.error is not None:
            raise entry.error

    def _lead(self, batch: list[_Entry[T]]) -> None:
        try:
            errors = self._work([entry.item for entry in batch])
            for entry, error in zip(batch, errors, strict=True):
                entry.error = error
        except BaseException as error:
            for entry in batch:
                entry.error = error
        finally:
            with self._changed:
                self._at_work = False
                for entry in batch:
                    entry.served = True
                self._changed.notify_all()
