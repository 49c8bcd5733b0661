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

"""``acme-cinder support-bundle``: what somebody who helps has to know."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from collections.abc import Iterator
import datetime
import importlib.metadata
import io
import json
import logging
import os
import platform
import re
import socket
import tarfile
from typing import Any
from typing import Final

from oslo_config import cfg

from acme_cinder.cmd import arguments
from acme_cinder.cmd import check
from acme_cinder.cmd import configuration
from acme_cinder.cmd import masking
from acme_cinder.cmd import output

LOG = logging.getLogger(__name__)
_PACKAGES: Final = (
    *("acme-cinder", "cinder", "os-brick", "oslo.config", "oslo.db"),
    *("oslo.privsep", "requests", "urllib3", "tooz", "eventlet"),
)
_LOG_BYTES: Final = 8 * 1024 * 1024
_LOG_LINES: Final = 5000
_PROBLEM: Final = re.compile(r"\b(WARNING|ERROR|CRITICAL)\b")
_LOG_NAMES: Final = ("cinder-volume.log", "volume.log", "c-vol.log")


def run(given: argparse.Namespace) -> int:
    try:
        sections = configuration.sections(given.config_file, given.backend)
        configuration.shorten_database_waits()
        configuration.prepare_commands()
        masks = masking.Masking(_files())
        path = given.output or _default_name()
        _write(path, masks, list(_members(sections)))
    except configuration.Wrong as error:
        LOG.critical("%s", error)
        return 2
    except OSError as error:
        LOG.critical("the bundle cannot be written: %s", error)
        return 2
    output.show(f"{path} is written; look into it before you send it")
    return 0


def _files() -> list[str]:
    # Cinder must be configured first.
    from acme_cinder import settings

    return [path for path in settings.config_files() if os.path.isfile(path)]


def _default_name() -> str:
    now = datetime.datetime.now(datetime.UTC)
    return f"acme-cinder-{socket.gethostname()}-{now:%Y%m%d-%H%M%S}.tar.gz"


def _write(
    path: str, masks: masking.Masking, members: list[tuple[str, str]]
) -> None:
    """:raises OSError: also if the file exists, which is kept."""
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
    with (
        os.fdopen(os.open(path, flags, 0o600), "wb") as file,
        tarfile.open(fileobj=file, mode="w:gz") as archive,
    ):
        for name, text in members:
            content = masks.clean(text).encode(errors="replace")
            member = tarfile.TarInfo(f"acme-cinder-support/{name}")
            member.size, member.mode = len(content), 0o600
            archive.addfile(member, io.BytesIO(content))


def _members(
    sections: list[configuration.Section],
) -> Iterator[tuple[str, str]]:
    """Names and texts; one that fails says so instead."""
    yield "versions.json", _as_json(_versions())
    for section in sections:
        found = check.find(section, may_change=False)
        yield (
            f"{section.name}/check.txt",
            check.table(section.name, found, 100),
        )
        for name, read in (
            ("options.json", _options),
            ("appliance.json", _appliance),
        ):
            yield f"{section.name}/{name}", _tried(read, section)
    yield from _problems()


def _as_json(value: Any) -> str:
    return json.dumps(value, indent=2, default=str)


def _tried(
    read: Callable[[configuration.Section], Any],
    section: configuration.Section,
) -> str:
    try:
        return _as_json(read(section))
    except Exception as error:
        # The rest of the bundle matters the more then.
        return _as_json({"error": f"{type(error).__name__}: {error}"})


def _versions() -> dict[str, Any]:
    packages: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            packages[name] = None
    return {
        "command": arguments.version(),
        "packages": packages,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME"),
    }


def _options(section: configuration.Section) -> dict[str, Any]:
    """Of the back end; of a secret only whether it is set."""
    from acme_cinder import opts

    found: dict[str, Any] = {
        "host": section.host,
        "cluster": section.cluster,
        "enabled_backends": cfg.CONF.enabled_backends,
        "coordination": cfg.CONF.coordination.backend_url,
    }
    for opt in opts.DRIVER_OPTS:
        try:
            value = section.options.safe_get(opt.name)
        except (cfg.Error, ValueError) as error:
            value = f"invalid: {error}"
        is_masked = opt.secret or opt.name == "acme_api_token"
        found[opt.name] = masking.MASK if is_masked and value else value
    return found


def _appliance(section: configuration.Section) -> dict[str, Any]:
    from acme_cinder import settings as options
    from acme_cinder import startup

    settings = options.read(section.options)
    backend = configuration.Backend(section, settings)
    with startup.new_client(settings) as client:
        api = client.with_deadline(backend.call_seconds)
        stats = api.get_stats()
        return {
            "system": dict(api.get_system().everything),
            "stats": {
                **vars(stats),
                "pools": [
                    {**vars(pool), "features": sorted(pool.features)}
                    for pool in stats.pools
                ],
            },
        }


def _problems() -> Iterator[tuple[str, str]]:
    """Warnings and errors of the log, where there is one in a file."""
    for path in _logs():
        try:
            with open(path, "rb") as file:
                file.seek(max(0, os.path.getsize(path) - _LOG_BYTES))
                text = file.read(_LOG_BYTES).decode(errors="replace")
        except OSError as error:
            yield "problems.txt", f"{path}: {error}"
            continue
        found = [line for line in text.splitlines() if _PROBLEM.search(line)]
        yield "problems.txt", "\n".join([path, *found[-_LOG_LINES:]])
        return


def _logs() -> list[str]:
    folder = cfg.CONF.log_dir or "/var/log/cinder"
    named = [cfg.CONF.log_file] if cfg.CONF.log_file else []
    paths = [os.path.join(folder, name) for name in (*named, *_LOG_NAMES)]
    return [path for path in paths if os.path.isfile(path)]
