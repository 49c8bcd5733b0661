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

"""The composition root: builds the appliance from its configuration."""

from collections.abc import Mapping
import contextlib
import importlib.metadata
import os
import pathlib
import uuid

from oslo_config import cfg

from acme_appliance import conf as options
from acme_appliance import plugins
from acme_appliance import tls
from acme_appliance import types
from acme_appliance.api.requests import ApiSettings
from acme_appliance.db.session import Database
from acme_appliance.engines import base as engines
from acme_appliance.exporters import base as exporters
from acme_appliance.host import filesystem
from acme_appliance.host import users
from acme_appliance.service import Service


def version() -> str:
    """The installed release; ``unknown`` in an uninstalled checkout."""
    try:
        return importlib.metadata.version("acme-cinder")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def ensure_state_path(conf: cfg.ConfigOpts) -> pathlib.Path:
    """Create the state directory, readable only by its owner and group."""
    path = options.state_path(conf)
    path.mkdir(mode=0o750, parents=True, exist_ok=True)
    return path


def system_id_file(state_path: pathlib.Path) -> pathlib.Path:
    return state_path / "system-id"


def system_id(state_path: pathlib.Path) -> str:
    """The appliance's id; created at its first start."""
    file = system_id_file(state_path)
    if not file.exists():
        _make_system_id(file)
    return str(uuid.UUID(file.read_text().strip()))


def _make_system_id(file: pathlib.Path) -> None:
    temporary = file.with_name(f"system-id.{uuid.uuid4()}")
    filesystem.write_durably(temporary, f"{uuid.uuid4()}\n")
    try:
        # Atomic; the first process to link wins.
        with contextlib.suppress(FileExistsError):
            os.link(temporary, file)
    finally:
        temporary.unlink()
    filesystem.sync_directory(file.parent)


def build_database(conf: cfg.ConfigOpts) -> Database:
    """Open the database, and upgrade it to this release's tables."""
    state_path = ensure_state_path(conf)
    # Others must not read it: it has token hashes and access rules.
    old_mask = os.umask(0o027)
    try:
        if not conf.database.url:
            # SQLite gives its other files the same owner.
            users.create_for_owner(state_path / options.DATABASE_NAME)
        database = Database(options.database_url(conf))
        database.upgrade()
    finally:
        os.umask(old_mask)
    return database


def build_engines(conf: cfg.ConfigOpts) -> dict[str, engines.Engine]:
    return {
        pool.name: plugins.engines()[pool.engine].open(pool)
        for pool in options.pools(conf)
    }


def build_exporter(conf: cfg.ConfigOpts) -> exporters.Exporter:
    return plugins.exporters()[conf.nfs.exporter].open(
        options.export_root(conf), options.exporter_options(conf)
    )


def build_settings(conf: cfg.ConfigOpts) -> types.ServiceSettings:
    portals = conf.nfs.portals
    return types.ServiceSettings(
        system_id=system_id(ensure_state_path(conf)),
        system_name=conf.system_name,
        version=version(),
        portals=tuple(
            types.Portal(address, preferred=address == portals[0])
            for address in portals
        ),
        nfs_versions=tuple(conf.nfs.versions),
        limits=types.Limits(
            max_shares=conf.limits.max_shares,
            max_snapshots_per_share=conf.limits.max_snapshots_per_share,
            max_access_rules_per_share=conf.limits.max_access_rules_per_share,
            max_share_bytes=conf.limits.max_share_bytes,
        ),
        file_defaults=types.FileDefaults(
            uid=conf.nfs.owner_uid, gid=conf.nfs.owner_gid
        ),
        allowed_owners=types.AllowedOwners(
            uids=options.allowed_ids(conf, "allowed_uids"),
            gids=options.allowed_ids(conf, "allowed_gids"),
        ),
        quotas={
            name: types.Quota(**limits)
            for name, limits in options.namespace_quotas(conf).items()
        },
        volume_file=conf.features.volume_file,
        workers=conf.workers,
        job_retention_days=conf.job_retention_days,
        event_retention_days=conf.event_retention_days,
    )


def build_service(
    conf: cfg.ConfigOpts,
    database: Database,
    pools: Mapping[str, engines.Engine] | None = None,
) -> Service:
    """Build the service, without starting it."""
    return Service(
        database,
        build_engines(conf) if pools is None else pools,
        build_exporter(conf),
        build_settings(conf),
    )


def build_api_settings(conf: cfg.ConfigOpts) -> ApiSettings:
    return ApiSettings(**options.api_members(conf))


def find_certificate(conf: cfg.ConfigOpts) -> tls.Certificate | None:
    """The server certificate; created if none is configured or exists.

    None: TLS is disabled.
    :raises tls.TlsError: a configured one cannot be used.
    """
    if not conf.tls.enabled:
        return None
    if conf.tls.certificate_file:
        return tls.read_certificate(
            pathlib.Path(conf.tls.certificate_file),
            pathlib.Path(conf.tls.key_file),
        )
    return tls.ensure_certificate(
        ensure_state_path(conf) / "tls",
        tls.certificate_names(
            conf.listen_addresses, conf.nfs.portals, conf.tls.names
        ),
    )
