# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""Measure both drivers alternately; see tools/bench.sh."""

import argparse
from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import dataclasses
import gc
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from typing import Any
import uuid

from oslo_concurrency import processutils
import prettytable

from tests.harness import appliance
from tests.harness import content
from tools.bench import backends
from tools.bench import counters

OURS = "acme_cinder.driver.acmeNfsDriver"
GENERIC = "cinder.volume.drivers.nfs.NfsDriver"
POOL_BYTES = 10 << 30
DATA_BYTES = 1 << 30
CHUNK_BYTES = 8 << 20
OPERATIONS = (
    "create",
    "snapshot",
    "create_from_snapshot",
    "clone",
    "clone_1gib",
    "extend",
    "delete",
)
#: Marks the start of a command in the appliance's debug log.
COMMAND_MARK = "acme_appliance.host.commands"


@dataclasses.dataclass
class Sample:
    seconds: float
    counts: counters.Counts


class Measurements:
    """Samples by operation and back end."""

    def __init__(self, count: counters.Counters) -> None:
        self._count = count
        self.samples: dict[tuple[str, str], list[Sample]] = {}

    @contextlib.contextmanager
    def measured(self, operation: str, backend: str) -> Iterator[None]:
        # Do not collect garbage of one driver while the other is measured.
        gc.collect()
        before = self._count.now()
        began = time.perf_counter()
        yield
        seconds = time.perf_counter() - began
        sample = Sample(seconds, self._count.now() - before)
        self.samples.setdefault((operation, backend), []).append(sample)

    def p50_seconds(self, operation: str, backend: str) -> float:
        return statistics.median(
            sample.seconds for sample in self.samples[operation, backend]
        )

    def p50_count(self, operation: str, backend: str, name: str) -> int:
        return statistics.median_high(
            int(getattr(sample.counts, name))
            for sample in self.samples[operation, backend]
        )


class Bench:
    """Runs the operations alternately on all back ends."""

    def __init__(
        self, measurements: Measurements, both: list[backends.Backend]
    ) -> None:
        self._measurements = measurements
        self._both = both

    def run(self, runs: int, large_runs: int) -> None:
        for number in range(runs):
            # Alternate the first one, which has cold caches.
            order = self._both if number % 2 == 0 else self._both[::-1]
            for backend in order:
                self._small(backend)
            print(f"run {number + 1} of {runs} done", flush=True)
        for number in range(large_runs):
            order = self._both if number % 2 == 0 else self._both[::-1]
            for backend in order:
                self._large(backend)
            print(f"1 GiB run {number + 1} of {large_runs} done", flush=True)

    def _time(
        self,
        backend: backends.Backend,
        operation: str,
        act: Callable[..., None],
        *arguments: Any,
    ) -> None:
        with self._measurements.measured(operation, backend.name):
            act(*arguments)

    def _small(self, backend: backends.Backend) -> None:
        """All operations on an almost empty volume."""
        volume, clone, restored = (backend.row() for _ in range(3))
        snapshot = backend.snapshot_row(volume)
        self._time(backend, "create", backend.create, volume)
        self._time(backend, "snapshot", backend.snapshot, snapshot)
        self._time(
            backend,
            "create_from_snapshot",
            backend.create_from_snapshot,
            restored,
            snapshot,
        )
        backend.delete_snapshot(snapshot)
        self._time(backend, "clone", backend.clone, clone, volume)
        self._time(backend, "extend", backend.extend, clone, 2)
        self._time(backend, "delete", backend.delete, clone)
        for row in (restored, volume):
            backend.delete(row)

    def _large(self, backend: backends.Backend) -> None:
        """Clone a full volume."""
        volume, clone = backend.row(), backend.row()
        backend.create(volume)
        with opened(backend, volume) as path:
            fill(path)
        self._time(backend, "clone_1gib", backend.clone, clone, volume)
        backend.delete(clone)
        backend.delete(volume)


@contextlib.contextmanager
def opened(backend: backends.Backend, volume: Any) -> Iterator[pathlib.Path]:
    """A volume's file on its server: writing is not measured."""
    export_root = pathlib.Path(os.environ["SANDBOX_EXPORT_ROOT"])
    location = volume.provider_location.partition(":")[2]
    yield export_root / location.lstrip("/") / volume.name


def fill(path: pathlib.Path) -> None:
    data = content.pattern(str(uuid.uuid4()), CHUNK_BYTES)
    with path.open("r+b") as out:
        for _ in range(DATA_BYTES // CHUNK_BYTES):
            out.write(data)
        out.flush()
        os.fsync(out.fileno())


def results(measurements: Measurements) -> list[dict[str, Any]]:
    rows = []
    for operation in OPERATIONS:
        ours = measurements.p50_seconds(operation, "ours")
        theirs = measurements.p50_seconds(operation, "generic")
        rows.append(
            {
                "op": operation,
                "ours_p50_seconds": round(ours, 4),
                "generic_nfs_p50_seconds": round(theirs, 4),
                "ratio": round(ours / theirs, 4),
                **{
                    field.name: measurements.p50_count(
                        operation, "ours", field.name
                    )
                    for field in dataclasses.fields(counters.Counts)
                },
            }
        )
    return rows


def table(measurements: Measurements) -> prettytable.PrettyTable:
    shown = prettytable.PrettyTable(
        [
            "operation",
            "ours, s",
            "generic NFS, s",
            "ratio",
            "HTTP requests",
            "processes",
            "mounts",
            "processes (generic)",
            "mounts (generic)",
        ]
    )
    shown.align = "r"
    shown.align["operation"] = "l"
    for row in results(measurements):
        operation = row["op"]
        shown.add_row(
            [
                operation,
                f"{row['ours_p50_seconds']:.3f}",
                f"{row['generic_nfs_p50_seconds']:.3f}",
                f"{row['ratio']:.3f}",
                row["http_requests"],
                row["processes"],
                row["mounts"],
                measurements.p50_count(operation, "generic", "processes"),
                measurements.p50_count(operation, "generic", "mounts"),
            ]
        )
    return shown


def generic_share(pool: pathlib.Path, address: str) -> str:
    """Create a share for the generic driver in the pool; return its export.

    It has one share for all volumes, and Cinder's host has root access.
    """
    folder = pool / "generic"
    subprocess.run(
        ["btrfs", "subvolume", "create", str(folder)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    folder.chmod(0o777)
    path = f"/{pool.name}/generic"
    pathlib.Path("/etc/exports.d/generic.exports").write_text(
        f"{path} {address}"
        f"(rw,sync,no_subtree_check,no_root_squash,fsid={uuid.uuid4()})\n"
    )
    subprocess.run(["exportfs", "-ra"], check=True)
    return f"{address}:{path}"


def make_backends(
    folder: pathlib.Path,
    log: pathlib.Path,
    box: appliance.Appliance,
    address: str,
) -> list[backends.Backend]:
    shares = folder / "generic-shares"
    shares.write_text(f"{generic_share(box.pool, address)}\n")
    options = {
        "ours": {
            "acme_api_addresses": box.url,
            "acme_api_token": box.token("bench", "driver:bench"),
            "acme_api_ca_file": str(box.ca_file),
            "nfs_mount_point_base": str(folder / "ours"),
        },
        "generic": {
            "nfs_shares_config": str(shares),
            "nfs_mount_point_base": str(folder / "generic"),
            "nfs_mount_options": "vers=4.2",
            "nfs_snapshot_support": "True",
            "nas_secure_file_operations": "false",
            "nas_secure_file_permissions": "false",
        },
    }
    cinder = backends.Cinder(folder / "cinder", log, options)
    return [
        cinder.backend("ours", OURS, box.pool.name),
        cinder.backend("generic", GENERIC, "generic"),
    ]


def process_seconds() -> float:
    """The time of the smallest process, started as the drivers do."""
    samples = []
    for _ in range(5):
        began = time.perf_counter()
        processutils.execute("true")
        samples.append(time.perf_counter() - began)
    return statistics.median(samples)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=pathlib.Path, required=True)
    parser.add_argument("--logs", type=pathlib.Path, required=True)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--large-runs", type=int, default=3)
    arguments = parser.parse_args()
    folder = pathlib.Path(os.environ["SANDBOX_SCRATCH"]) / "bench"
    for name in ("cinder/locks", "ours", "generic"):
        (folder / name).mkdir(parents=True)
    address = "127.0.0.1"
    box = appliance.Appliance(
        str(pathlib.Path(sys.executable).parent / "acme-appliance"),
        folder / "appliance",
        arguments.logs,
        export_root=pathlib.Path(os.environ["SANDBOX_EXPORT_ROOT"]),
        address=address,
        arguments=("--debug",),
    )
    print("starting the appliance and both drivers", flush=True)
    box.init(POOL_BYTES)
    box.start()
    try:
        log = arguments.logs / "drivers.log"
        both = make_backends(folder, log, box, address)
        count = counters.Counters(box.process.log, COMMAND_MARK)
        count.install()
        measurements = Measurements(count)
        Bench(measurements, both).run(arguments.runs, arguments.large_runs)
    finally:
        box.process.stop()
    text = json.dumps({"results": results(measurements)}, indent=1)
    arguments.json.write_text(f"{text}\n")
    print(table(measurements))
    print(
        "A process that a service starts (oslo.concurrency, like theirs)"
        f" takes {process_seconds():.3f} s here."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
