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

"""Snapshots of several subvolumes in one transaction of btrfs.

All snapshots that are pending when a transaction is committed are made while
no writer can be in it. So they show one moment, and have the same
``otransid``. To get them into one transaction, a snapshot that nobody needs
is started first: the others arrive while its transaction is committed, have
to wait, and join the next one together. This needs Linux 6.12 or later, works
almost always at the first attempt, and is no promise of btrfs: so the result
is checked, and the attempt repeated.

The kernel holds the lock of the parent directory during the commit. So each
snapshot is made in a directory of its own::

    POOL / moments / TOKEN / SNAPSHOT / made

A read-only subvolume cannot be moved to another directory (EROFS). So
snapshots are made writable, where no client gets, moved to the folder of
snapshots under a temporary name, made read-only, and renamed there.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import functools
import os
import threading
import time
from typing import Final
from typing import Protocol

from acme_appliance.engines import base
from acme_appliance.engines import folder
from acme_appliance.engines import staging
from acme_appliance.host import btrfsutil
from acme_appliance.host import filesystem

FOLDER: Final = "moments"
_MADE: Final = "made"
_LURE: Final = "lure"
_LURE_AHEAD_SECONDS: Final = 0.001


class Places(Protocol):
    """What is needed of the engine."""

    root: str

    def folder(
        self, kind: base.Kind
    ) -> contextlib.AbstractContextManager[int]: ...

    def share(
        self, share_id: str
    ) -> contextlib.AbstractContextManager[int]: ...


class StagedSubvolumes(base.Staged):
    """Snapshots in directories of their own.

    :param token: not used before; see :class:`staging.Tokens`.
    :param end: called when nothing is left of the token.
    """

    def __init__(
        self,
        places: Places,
        members: base.Members,
        token: str,
        end: Callable[[str], None],
    ) -> None:
        self._places = places
        self._members = members
        self._token = token
        self._end = end

    # -- making them

    def prepare(self) -> None:
        """Make the directories."""
        folder.make_folder(self._places.root, FOLDER)
        with self._opened_folder() as parent:
            os.mkdir(self._token, 0o700, dir_fd=parent)
            with folder.opened(self._token, parent) as own:
                for _, snapshot_id in self._members:
                    os.mkdir(base.check_id(snapshot_id), 0o700, dir_fd=own)
                os.mkdir(_LURE, 0o700, dir_fd=own)

    def make(self, lure: int | None = None) -> None:
        """Snapshot all members.

        :param lure: a subvolume to snapshot first; see the module.
        """
        with contextlib.ExitStack() as stack:
            own = stack.enter_context(self._opened())
            calls = []
            for share_id, snapshot_id in self._members:
                with folder.translated(share_id):
                    share = stack.enter_context(self._places.share(share_id))
                place = stack.enter_context(folder.opened(snapshot_id, own))
                calls.append(
                    functools.partial(_snapshot, share, place, share_id)
                )
            first = None
            if lure is not None:
                place = stack.enter_context(folder.opened(_LURE, own))
                first = functools.partial(_snapshot, lure, place, _LURE)
            begin = _now()
            run_together(calls, first)
            self.pause_seconds = _now() - begin

    def is_one_transaction(self) -> bool:
        with self._opened() as own:
            return 1 == len(
                {
                    self._transaction(own, snapshot_id)
                    for _, snapshot_id in self._members
                }
            )

    def unmake(self) -> None:
        """Undo :meth:`make`, also an incomplete one."""
        with self._opened() as own:
            for name in (*(made for _, made in self._members), _LURE):
                with folder.opened(name, own) as place:
                    _delete(place, _MADE)

    @staticmethod
    def _transaction(own: int, snapshot_id: str) -> int:
        with (
            folder.opened(snapshot_id, own) as place,
            folder.opened(_MADE, place) as made,
        ):
            return btrfsutil.creation_transaction(made)

    # -- what becomes of them

    def publish(self) -> None:
        with folder.translated(self._token):
            try:
                run_together(
                    [
                        functools.partial(self._publish, snapshot_id)
                        for _, snapshot_id in self._members
                    ]
                )
            except BaseException:
                self._unpublish()
                self._remove()
                raise
            self._remove()

    def discard(self) -> None:
        with folder.translated(self._token):
            self._remove()

    def _publish(self, snapshot_id: str) -> None:
        temporary = staging.name(self._token, snapshot_id)
        with (
            self._opened() as own,
            folder.opened(snapshot_id, own) as place,
            self._places.folder(base.Kind.SNAPSHOT) as snapshots,
        ):
            os.rename(_MADE, temporary, src_dir_fd=place, dst_dir_fd=snapshots)
            with folder.opened(temporary, snapshots) as made:
                btrfsutil.set_read_only(made)
            filesystem.rename_exclusive(snapshots, temporary, snapshot_id)

    def _unpublish(self) -> None:
        with self._places.folder(base.Kind.SNAPSHOT) as snapshots:
            for _, snapshot_id in self._members:
                _delete(snapshots, staging.name(self._token, snapshot_id))
                _delete(snapshots, snapshot_id)

    def _remove(self) -> None:
        try:
            with self._opened_folder() as parent:
                remove(parent, self._token)
        finally:
            # What could not be removed is left to the next sweep.
            self._end(self._token)

    def _opened_folder(self) -> contextlib.AbstractContextManager[int]:
        return folder.opened(os.path.join(self._places.root, FOLDER))

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        with (
            self._opened_folder() as parent,
            folder.opened(self._token, parent) as own,
        ):
            yield own


def remove(parent: int, token: str) -> None:
    """Remove what is left of a token, if anything is.

    :param parent: descriptor of the folder of all tokens.
    """
    if folder.find(parent, token) is None:
        return
    with folder.opened(token, parent) as own:
        for name in os.listdir(own):
            with folder.opened(name, own) as place:
                _delete(place, _MADE)
            os.rmdir(name, dir_fd=own)
    os.rmdir(token, dir_fd=parent)


def sweep(places: Places, tokens: staging.Tokens) -> None:
    """Remove what killed processes left, see :class:`staging.Tokens`."""
    with places.folder(base.Kind.SNAPSHOT) as snapshots:
        for name in tokens.abandoned(os.listdir(snapshots)):
            _delete(snapshots, name)
    path = os.path.join(places.root, FOLDER)
    if os.path.isdir(path):
        with folder.opened(path) as parent:
            for token in tokens.abandoned(os.listdir(parent)):
                remove(parent, token)


def run_together(
    calls: Sequence[Callable[[], None]],
    first: Callable[[], None] | None = None,
) -> None:
    """Run all at the same time; return when all have ended.

    :param first: begins a millisecond earlier.
    :raises Exception: the first error.
    """
    errors: list[BaseException] = []
    go = threading.Event()
    ready = threading.Barrier(len(calls) + 1)

    def run(call: Callable[[], None], wait: bool) -> None:
        try:
            if wait:
                ready.wait()
                go.wait()
            call()
        except BaseException as error:
            errors.append(error)

    # Daemons: a call that hangs must not block the process's exit.
    threads = [
        threading.Thread(target=run, args=(call, True), daemon=True)
        for call in calls
    ]
    try:
        for thread in threads:
            thread.start()
    except RuntimeError:
        # The process may have no more threads: those that wait must end.
        ready.abort()
        raise
    ready.wait()
    if first is not None:
        ahead = threading.Thread(target=run, args=(first, False), daemon=True)
        threads.append(ahead)
        ahead.start()
        time.sleep(_LURE_AHEAD_SECONDS)
    go.set()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def _snapshot(source: int, place: int, name: str) -> None:
    """:param name: the share's, for messages."""
    with folder.translated(name):
        btrfsutil.create_snapshot(source, place, _MADE, read_only=False)


def _delete(parent: int, name: str) -> None:
    if folder.find(parent, name) is not None:
        btrfsutil.delete_subvolume(parent, name)


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
