"""The driver on real NFS: a kernel server, a btrfs pool, real mounts."""

# As in tests.unit.driver: the fixture before Cinder, and the objects first.
# isort: off
from tests.fixtures import appliance
from tests.unit import driver
# isort: on

__all__ = ("appliance", "driver")
