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

"""Rules that drop what the NFS server sends, and expire by themselves.

There are two forms, both with the server's ports in a set whose elements have
a timeout: of nftables, and of ipset with iptables where the kernel's nftables
lack the family ``inet``. Nothing is dropped while the set is empty.
"""

import abc
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterator
import contextlib
import itertools
import logging
import shutil
from typing import Final

from acme_appliance.host import commands
from acme_appliance.host import nftables

LOG = logging.getLogger(__name__)

#: Of the table and of the set; the operator sees it.
NAME: Final = "acme_moment"

#: To shut and to open, while clients wait.
_PROMPT_SECONDS: Final = 2.0
#: To install and to remove; iptables may load modules of the kernel.
_COMMAND_SECONDS: Final = 30.0
_XTABLES: Final = ("iptables-legacy", "ip6tables-legacy")
_PROTOCOLS: Final = ("tcp", "udp")
#: Equal rules that a sweep removes at most.
_MOST_RULES: Final = 16


class RuleError(Exception):
    """There is no such rule here, or it could not be changed."""


class Rule(abc.ABC):
    """An installed rule."""

    @abc.abstractmethod
    def shut(self, ports: Collection[int], seconds: int) -> None:
        """Drop what is sent from these ports, for so long at most.

        :raises RuleError: some may be dropped until then.
        """

    @abc.abstractmethod
    def open(self, ports: Collection[int]) -> None:
        """Drop nothing.

        :raises RuleError: this failed, or the time was up.
        """


def install() -> contextlib.AbstractContextManager[Rule]:
    """Install a rule in this network namespace, and remove it at the end.

    :raises RuleError: on entry: no form works, with all reasons.
    """
    return _install((_nft_rule, _ipset_rule))


_Form = Callable[[], contextlib.AbstractContextManager[Rule]]


@contextlib.contextmanager
def _install(forms: tuple[_Form, ...]) -> Iterator[Rule]:
    reasons = []
    with contextlib.ExitStack() as stack:
        for form in forms:
            try:
                rule = stack.enter_context(form())
            except RuleError as error:
                reasons.append(str(error))
                continue
            yield rule
            return
    raise RuleError("; ".join(reasons))


def sweep() -> None:
    """Remove what a killed process left: only the form of ipset leaves
    anything.

    :raises RuleError: it is still there.
    """
    if shutil.which("ipset", path=commands.PATH) is None:
        return
    try:
        names = _run("ipset", "list", "-name").split()
        if NAME in names:
            _remove_rules()
            _run("ipset", "destroy", NAME)
    except commands.CommandError as error:
        raise RuleError(str(error)) from error


# -- nftables


class _NftRule(Rule):
    def __init__(self, nft: nftables.Nft) -> None:
        self._nft = nft

    def shut(self, ports: Collection[int], seconds: int) -> None:
        listed = ", ".join(f"{port} timeout {seconds}s" for port in ports)
        self._run(f"add element inet {NAME} shut {{ {listed} }}")

    def open(self, ports: Collection[int]) -> None:
        listed = ", ".join(str(port) for port in ports)
        # An error if one has expired.
        self._run(f"delete element inet {NAME} shut {{ {listed} }}")

    def _run(self, text: str) -> None:
        try:
            self._nft.run(text)
        except nftables.NftError as error:
            raise RuleError(str(error)) from error


_NFT: Final = f"""
add table inet {NAME} {{ flags owner; }}
add set inet {NAME} shut {{ type inet_service; flags timeout; }}
add chain inet {NAME} out {{ type filter hook output priority 300; \
policy accept; }}
add rule inet {NAME} out meta l4proto {{ tcp, udp }} th sport @shut \
counter drop
"""


@contextlib.contextmanager
def _nft_rule() -> Iterator[Rule]:
    try:
        nft = nftables.Nft()
    except nftables.NftError as error:
        raise RuleError(str(error)) from error
    # The table ends with its owner.
    with contextlib.closing(nft):
        rule = _NftRule(nft)
        rule._run(_NFT)
        yield rule


# -- ipset with iptables


class _IpsetRule(Rule):
    def shut(self, ports: Collection[int], seconds: int) -> None:
        for port in ports:
            self._run("add", port, "timeout", str(seconds))

    def open(self, ports: Collection[int]) -> None:
        for port in ports:
            # No error if it has expired: the caller looks at the clock.
            self._run("del", port)

    @staticmethod
    def _run(verb: str, port: int, *further: str) -> None:
        try:
            commands.run(
                ["ipset", "-exist", verb, NAME, str(port), *further],
                timeout_seconds=_PROMPT_SECONDS,
            )
        except commands.CommandError as error:
            raise RuleError(str(error)) from error


@contextlib.contextmanager
def _ipset_rule() -> Iterator[Rule]:
    try:
        _install_set()
    except commands.CommandError as error:
        _remove_quietly(sweep)
        raise RuleError(str(error)) from error
    try:
        yield _IpsetRule()
    finally:
        _remove_quietly(_remove_set)


def _install_set() -> None:
    create = (
        *("ipset", "create", NAME, "bitmap:port"),
        *("range", "0-65535", "timeout", "1"),
    )
    try:
        _run(*create)
    except commands.CommandError:
        # There may be one of a killed process.
        with contextlib.suppress(RuleError):
            sweep()
        _run(*create)
    for program, protocol in _tables():
        _xtables(program, "-I", protocol)


def _remove_set() -> None:
    for program, protocol in _tables():
        _xtables(program, "-D", protocol)
    _run("ipset", "destroy", NAME)


def _remove_quietly(remove: Callable[[], None]) -> None:
    try:
        remove()
    except (RuleError, commands.CommandError) as error:
        LOG.warning("The rule %s is left, and drops nothing: %s", NAME, error)


def _tables() -> Iterator[tuple[str, str]]:
    return itertools.product(_XTABLES, _PROTOCOLS)


def _remove_rules() -> None:
    """Remove all rules of the set; a failing command means: no more."""
    for program, protocol in _tables():
        with contextlib.suppress(commands.CommandError):
            for _ in range(_MOST_RULES):
                _xtables(program, "-D", protocol)


def _xtables(program: str, verb: str, protocol: str) -> None:
    _run(
        *(program, "--wait", "1", verb, "OUTPUT", "--protocol", protocol),
        *("--match", "set", "--match-set", NAME, "src", "--jump", "DROP"),
    )


def _run(*argv: str) -> str:
    return commands.run(argv, timeout_seconds=_COMMAND_SECONDS)
