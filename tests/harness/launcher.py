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

"""Runs the service in processes that can be killed, one per request.

``python -m tests.harness.launcher DATABASE`` says that it is ready, reads
requests from its standard input, one JSON object a line, forks a process for
each, and answers with what came of it. In that process the service has a
real database, a pool on a disk and, where there is one, the kernel's NFS
server; at a given step it kills itself with SIGKILL, in the middle of
whatever it is doing.

Request: ``{pool, engine, second, root, nfs, phases, scenario, crash_at}``;
second is null or another pool's engine and directory; root is the exporter's;
phases are of ``prepare`` and ``request``; crash_at counts the steps of the
request, null: never. Answer: ``{signal, steps, state, report}``.
"""

import dataclasses
import gc
import hashlib
import json
import os
import pathlib
import signal
import stat
import sys
import traceback

from acme_appliance.db.session import Database
from acme_appliance.engines import base as engines
from acme_appliance.engines.btrfs import engine as btrfs
from acme_appliance.engines.memory.engine import MemoryEngine
from acme_appliance.engines.reflink import engine as reflink
from acme_appliance.exporters.kernel import exporter as kernel
from acme_appliance.exporters.memory import exporter as memory
from acme_appliance.service import Portal
from acme_appliance.service import Service
from acme_appliance.service import ServiceSettings
from tests.unit.appliance import fixtures
from tests.unit.appliance import scenarios

_ENGINES = {
    each.name: each for each in (btrfs.BtrfsEngine, reflink.ReflinkEngine)
}


class ProcessFixture(fixtures.ServiceCalls):
    """One process's view: made, used, and gone with it."""

    def __init__(self, request, database):
        self.steps = []
        self.crash_at = None
        self.engine = _ENGINES[request["engine"]](request["pool"])
        if request["nfs"]:
            self.exporter = kernel.KernelExporter(request["root"])
        else:
            self.exporter = memory.MemoryExporter(request["root"])
        self.engines = {"gold": self.engine}
        if request["second"] is not None:
            engine, pool = request["second"]
            self.engines["silver"] = _ENGINES[engine](pool)
        self.service = Service(
            database,
            self.engines,
            self.exporter,
            ServiceSettings(
                system_id=fixtures.SYSTEM_ID,
                system_name="test",
                portals=(Portal("127.0.0.1"),),
            ),
            on_step=self.on_step,
        )

    def on_step(self, job_id, name):
        self.steps.append(name)
        if len(self.steps) - 1 == self.crash_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def run(self, request):
        prepare, change = scenarios.SCENARIOS[request["scenario"]]
        self.service.recovery.copy_seconds = fixtures.WAIT
        report = self.service.start()
        report.add(self.service.wait_until_compared(fixtures.WAIT))
        if "prepare" in request["phases"]:
            prepare(self)
        self.steps.clear()
        self.crash_at = request["crash_at"]
        if "request" in request["phases"]:
            change(self)
        return {
            "report": dataclasses.asdict(report),
            "steps": list(self.steps),
            "state": self.state(),
        }

    def write(self, share_id, data, name="volume"):
        path = pathlib.Path(
            self.engine.directory(fixtures.share(share_id)), name
        )
        with open(path, "r+b") as file:
            file.write(data)

    def state(self):
        """Everything there is, as JSON has it."""
        return {
            **self.listed(),
            "exports": {
                str(each): clients
                for each, clients in self.exporter.exported().items()
            },
            "storage": {
                f"{pool} {kind} {id_}": _content(
                    pathlib.Path(engine.root, f"{kind}s", id_)
                )
                for pool, engine in self.engines.items()
                for kind in engines.Kind
                for id_ in sorted(engine.ids(kind))
            },
            "found": {
                name: value
                for name, value in self.service.reconciliation.run(
                    False
                ).items()
                if value
            },
        }


class _Warming(fixtures.ServiceCalls):
    write = fixtures.ServiceFixture.write
    _entry = fixtures.ServiceFixture._entry


def _content(folder):
    found = folder.lstat()
    content = {".": [found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)]}
    for path in sorted(folder.iterdir()):
        found = path.lstat()
        content[path.name] = [
            found.st_uid,
            found.st_gid,
            stat.S_IMODE(found.st_mode),
            found.st_size,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        ]
    return content


def _child(request, database, fd):
    try:
        answer = ProcessFixture(request, database).run(request)
    except Exception:
        answer = {"error": traceback.format_exc()}
    with open(fd, "w") as pipe:
        json.dump(answer, pipe)


def _serve(request, database):
    receiving, sending = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(receiving)
        try:
            _child(request, database, sending)
        finally:
            os._exit(0)
    os.close(sending)
    with open(receiving) as pipe:
        text = pipe.read()
    _, status = os.waitpid(pid, 0)
    answer = json.loads(text) if text else {}
    killed = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
    return {**answer, "signal": killed}


def _warm_up(file):
    """Do everything once, so that what all need is made before the forks;
    on some kernels a process that touches much memory takes a second.

    Returns the database that they use, closed: its statements are compiled.
    """
    database = Database(f"sqlite:///{file}")
    database.upgrade()
    engine = MemoryEngine(durable=False)
    engines_by_name = {"gold": engine, "silver": MemoryEngine(durable=False)}
    service = Service(
        database,
        engines_by_name,
        memory.MemoryExporter(),
        ServiceSettings(system_id=fixtures.SYSTEM_ID, system_name="test"),
    )
    service.start()
    fixture = _Warming()
    fixture.service, fixture.engine = service, engine
    fixture.engines = engines_by_name
    for prepare, change in scenarios.SCENARIOS.values():
        prepare(fixture)
        change(fixture)
        for holder in ("cmp-1", "cmp-2"):
            fixture.delete_access(scenarios.SHARE, holder)
        for holder in ("bak-1", "bak-2"):
            fixture.delete_snapshot_access(scenarios.SNAPSHOT, holder)
        listed = fixture.listed()
        for body in listed["group_snapshots"]:
            fixture.delete_group_snapshot(body["id"])
        for body in listed["groups"]:
            fixture.delete_group(body["id"])
        for body in listed["shares"]:
            fixture.delete_share(body["id"], "cascade")
    service.reconciliation.run(False)
    # Its threads must not be there when forking.
    service.stop()
    database.close()
    gc.collect()
    gc.freeze()
    gc.disable()
    return database


def main():
    database = _warm_up(sys.argv[1])
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps(_serve(json.loads(line), database)), flush=True)


if __name__ == "__main__":
    main()
