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

"""``acme-appliance token``."""

import datetime
import os
from typing import Any

from oslo_config import cfg

from acme_appliance.cmd.common import CommandError
from acme_appliance.cmd.common import Exit

_SCOPES = (
    "Scopes: driver:NAMESPACE, all that a Cinder back end needs, in its"
    " namespace; operator and admin, in all namespaces; metrics, figures"
    " only."
)


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "token",
        help="create, list and revoke the tokens of clients",
        description="Clients authenticate with tokens. Tokens are stored as"
        " hashes: revoke and replace a lost one. To allow rotation, two"
        " tokens of the same name can be valid.",
    )
    actions = parser.add_subparsers(dest="action", required=True)
    create = actions.add_parser(
        "create",
        help="create a token and print it",
        description=f"Create a token and print it, once. {_SCOPES}",
    )
    create.add_argument(
        # Not "name", which oslo.config uses for the subcommand.
        "credential",
        metavar="NAME",
        help="name of the client, for example cinder-a",
    )
    create.add_argument(
        "--scope",
        required=True,
        help="driver:NAMESPACE, operator, admin or metrics",
    )
    create.add_argument(
        "--days",
        type=int,
        metavar="N",
        help="valid for N days; default: until revoked",
    )
    create.add_argument(
        "--output",
        metavar="FILE",
        help="write only the token, to a new file readable only by its"
        " owner, instead of printing it",
    )
    actions.add_parser("list", help="list all tokens, without their secrets")
    revoke = actions.add_parser(
        "revoke", help="revoke a token, or all tokens of a name, at once"
    )
    revoke.add_argument("token", metavar="NAME|ID")


def run(conf: cfg.ConfigOpts) -> int:
    from acme_appliance.cmd import services
    from acme_appliance.service import tokens

    with services.open_database(conf) as database:
        store = tokens.TokenStore(database)
        action = {"create": _create, "list": _list, "revoke": _revoke}
        try:
            action[conf.command.action](conf, store)
        except tokens.TokenError as error:
            raise CommandError(str(error)) from error
    return Exit.OK


def _create(conf: cfg.ConfigOpts, store: Any) -> None:
    from acme_appliance.service import tokens

    scope, namespace = tokens.parse_scope(conf.command.scope)
    days = conf.command.days
    if days is not None and not 1 <= days <= 36500:
        raise CommandError("--days must be between 1 and 36500", Exit.USAGE)
    output = conf.command.output
    file = _open_new(output) if output else None
    lifetime = datetime.timedelta(days=days) if days else None
    try:
        secret, credential = store.create(
            conf.command.credential, scope, namespace, lifetime=lifetime
        )
    except Exception:
        if file is not None:
            os.unlink(output)
        raise
    if file is None:
        print(secret)
        return
    with file:
        file.write(f"{secret}\n")
    print(f"token {credential.id} of {credential.name} is in {output}")


def _open_new(path: str) -> Any:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise CommandError(
            f"{path} already exists: name a new file, or remove it first"
        ) from error
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error}") from error
    return os.fdopen(descriptor, "w")


def _list(conf: cfg.ConfigOpts, store: Any) -> None:
    import prettytable

    now = datetime.datetime.now(datetime.UTC)
    table = prettytable.PrettyTable(
        ["name", "id", "scope", "state", "created", "expires"]
    )
    table.align = "l"
    for each in store.list_long():
        scope = each.scope
        if each.namespace is not None:
            scope += f":{each.namespace}"
        expires = each.expires_at and f"{each.expires_at:%Y-%m-%d %H:%M}"
        table.add_row(
            [
                each.name,
                each.id,
                scope,
                each.state(now),
                f"{each.created_at:%Y-%m-%d %H:%M}",
                expires or "never",
            ]
        )
    print(table)


def _revoke(conf: cfg.ConfigOpts, store: Any) -> None:
    for each in store.revoke(conf.command.token):
        print(f"revoked {each.id} of {each.name}")
