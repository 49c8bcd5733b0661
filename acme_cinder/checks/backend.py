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

"""All checks of one back end, beginning with its options."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
import contextlib
import dataclasses
from typing import Any
from typing import Final

from cinder import exception

from acme_cinder import settings as options
from acme_cinder import startup
from acme_cinder.checks import findings

OPTIONS: Final = "options"
#: Of each call: somebody waits at a terminal.
_CALL_SECONDS: Final = 30.0
_SEE: Final = 'see "Options" in the documentation, and the sample file'


def check(
    section: Any,
    name: str,
    host: str,
    cluster: str | None,
    wanted: Iterable[findings.Check],
) -> Iterator[findings.Finding]:
    """Run checks of a back end.

    :param section: Cinder's configuration of it.
    :param name: of its section; its mounts have it, too.
    :param host, cluster: as in :class:`findings.Scene`.
    """
    with contextlib.ExitStack() as opened:
        try:
            made = scene(section, name, host, cluster, opened)
        except exception.InvalidConfigurationValue as error:
            complaints = getattr(error, "complaints", (str(error),))
            yield from (
                _about_options(findings.State.FAILED, each, _SEE)
                for each in complaints
            )
            nothing: Any = None
            made = findings.Scene(nothing, nothing, nothing, host, cluster)
            failed = [OPTIONS]
        else:
            yield _about_options(findings.State.OK, f"[{name}] is complete")
            failed = []
        for unused, reason in options.find_unused(section).items():
            yield _about_options(
                findings.State.WARNING,
                f"{unused} has no effect: {reason}",
                "correct its name, or take it out",
            )
        yield from findings.run(made, wanted, failed)


def _about_options(
    state: findings.State, text: str, remedy: str = ""
) -> findings.Finding:
    is_wrong = state is findings.State.FAILED
    return findings.Finding(OPTIONS, state, text, remedy, is_wrong)


def scene(
    section: Any,
    name: str,
    host: str,
    cluster: str | None,
    opened: contextlib.ExitStack,
) -> findings.Scene:
    """What the checks of a back end look at.

    :param opened: gets what must be closed.
    :raises InvalidConfigurationValue: an option is invalid.
    """
    settings = options.read(section)
    api = opened.enter_context(startup.new_client(settings))
    return findings.Scene(
        settings,
        api.with_deadline(min(_CALL_SECONDS, settings.deadline_seconds)),
        startup.new_mounts(settings, name),
        host,
        cluster,
        lambda addresses: startup.new_client(
            dataclasses.replace(settings, api_addresses=tuple(addresses))
        ),
    )
