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

"""Checks, and what they find."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import dataclasses
import datetime
import enum
import functools

from cinder import exception
from oslo_log import log as logging

from acme_cinder import errors
from acme_cinder import mount
from acme_cinder import settings as options
import acme_client

LOG = logging.getLogger(__name__)


class State(enum.StrEnum):
    OK = "ok"
    #: It works, and somebody should look at it.
    WARNING = "warning"
    FAILED = "failed"
    #: It depends on something that failed.
    UNCHECKED = "not checked"


@dataclasses.dataclass(frozen=True)
class Finding:
    """What a check says about one thing.

    :ivar text: what is so; names the option where there is one.
    :ivar remedy: what to do about it; empty: nothing.
    :ivar is_option: whether an option is wrong.
    """

    check: str
    state: State
    text: str
    remedy: str = ""
    is_option: bool = False

    @property
    def needs_work(self) -> bool:
        return self.state in (State.FAILED, State.UNCHECKED)

    def __str__(self) -> str:
        return f"{self.text}; {self.remedy}" if self.remedy else self.text


@dataclasses.dataclass(frozen=True)
class Note:
    """A finding, as a check yields it."""

    state: State
    text: str
    remedy: str = ""
    is_option: bool = False


def ok(text: str) -> Note:
    return Note(State.OK, text)


def warning(text: str, remedy: str = "") -> Note:
    return Note(State.WARNING, text, remedy)


def failed(text: str, remedy: str = "", *, is_option: bool = False) -> Note:
    return Note(State.FAILED, text, remedy, is_option)


def unchecked(why: str) -> Note:
    return Note(State.UNCHECKED, f"not checked: {why}")


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


@dataclasses.dataclass
class Scene:
    """What the checks look at: one back end, on this host.

    :ivar host: of the back end, in Cinder's form: ``HOST@BACKEND``.
    :ivar cluster: likewise, None without a cluster.
    :ivar client_for: makes a client for some of the addresses.
    :ivar reached: the addresses that passed the checks so far; each check of
        the network narrows them down.
    :ivar may_change: whether the credential may change anything.
    """

    settings: options.DriverSettings
    api: acme_client.Client
    mounts: mount.Mounts
    host: str = ""
    cluster: str | None = None
    client_for: (
        Callable[
            [Sequence[str]],
            contextlib.AbstractContextManager[acme_client.Client],
        ]
        | None
    ) = None
    nfs_port: int = 2049
    now: Callable[[], datetime.datetime] = _now
    may_change: bool = True
    reached: dict[str, set[str]] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def token(self) -> acme_client.OwnToken:
        return self.api.get_own_token()

    @functools.cached_property
    def figures(self) -> acme_client.Stats:
        return self.api.get_stats()

    @property
    def pools(self) -> list[acme_client.Pool]:
        """Those that the operator has chosen."""
        return [
            pool
            for pool in self.figures.pools
            if not self.settings.pools or pool.name in self.settings.pools
        ]

    @property
    def portals(self) -> tuple[str, ...]:
        """The NFS addresses that shares are mounted from."""
        chosen = self.settings.portal
        return (chosen,) if chosen else self.figures.portals


@dataclasses.dataclass(frozen=True)
class Check:
    """One thing that can be wrong.

    :ivar run: yields a note for each thing that it looked at.
    :ivar needs: the checks without which this one says nothing.
    """

    name: str
    run: Callable[[Scene], Iterable[Note]]
    needs: tuple[str, ...] = ()


def run(
    scene: Scene, checks: Iterable[Check], already_failed: Iterable[str] = ()
) -> Iterator[Finding]:
    """Run checks in order; one that needs a failed one is not run.

    A check counts as failed if nothing that it looked at is right.
    """
    causes = {name: name for name in already_failed}
    for check in checks:
        cause = next(
            (causes[name] for name in check.needs if name in causes), None
        )
        if cause is not None:
            notes = [unchecked(f"because {cause} failed")]
        else:
            notes = list(_run_one(scene, check))
        states = {note.state for note in notes}
        if states & {State.FAILED, State.UNCHECKED} and not (
            states & {State.OK, State.WARNING}
        ):
            causes[check.name] = cause or check.name
        for note in notes:
            yield Finding(check.name, **vars(note))


def _run_one(scene: Scene, check: Check) -> Iterator[Note]:
    try:
        yield from check.run(scene)
    except (*errors.BELOW, exception.CinderException) as error:
        yield failed(str(error))
    except Exception as error:
        # One broken check must not hide what the others find.
        LOG.debug("The check %s broke off", check.name, exc_info=True)
        yield failed(
            f"the check broke off: {type(error).__name__}: {error}",
            "run it again with --debug, which logs where",
        )
