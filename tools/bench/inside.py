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

"""The appliance's service without HTTP, called by threads of its process.

A separate program that runs with the measured checkout first on its path:
``python inside.py CONFIGURATION SECONDS THREADS...`` prints JSON: for each
number of threads, the creates per second and the CPU seconds of each. With
``--fill SHARES`` instead of the seconds it creates that many shares.
"""

import functools
import itertools
import json
import pathlib
import sys
import time
from typing import Any

# Without its package, which may be the other checkout's.
sys.path.insert(0, str(pathlib.Path(__file__).parent))

import load

from acme_appliance import composition
from acme_appliance import conf as options
from acme_appliance import types

_CALLER = types.Caller("bench", "driver", "bench", "bench")
_FILL_THREADS = 16
_NO_LIMIT = 1e9


def _create(service: Any, share_id: str) -> None:
    outcome = service.shares.put(
        _CALLER,
        share_id,
        {
            "name": f"volume-{share_id}",
            "size_bytes": 1 << 30,
            "labels": {"cinder.volume_id": share_id},
        },
        wait_seconds=60,
    )
    if not isinstance(outcome, types.Done):
        raise load.Unexpected(f"{share_id} is still being made")


def _rates(service: Any, seconds: float, threads: int) -> dict[str, float]:
    create = functools.partial(_create, service)
    began = time.process_time()
    done, rate = load.run_together([create] * threads, load.new_ids(), seconds)
    cpu = (time.process_time() - began) / len(done)
    return {"per_second": rate, "cpu_seconds": cpu}


def main(configuration: str, seconds: str, *arguments: str) -> None:
    conf = options.load(["--config-file", configuration])
    service = composition.build_service(conf, composition.build_database(conf))
    service.start()
    if seconds == "--fill":
        ids = itertools.islice(load.new_ids(), int(arguments[0]))
        create = functools.partial(_create, service)
        load.run_together([create] * _FILL_THREADS, ids, _NO_LIMIT)
        print("{}")
    else:
        each = {n: _rates(service, float(seconds), int(n)) for n in arguments}
        print(json.dumps(each))
    service.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
