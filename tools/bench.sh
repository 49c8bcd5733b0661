#!/bin/bash
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
#
# Benchmarks of the driver, against Cinder's generic NFS driver, and of the
# appliance. See --help.
set -euo pipefail
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() {
    cat <<'TEXT'
usage: tools/bench.sh [--json FILE] [--runs N] [--large-runs N] [--sandbox]
       tools/bench.sh appliance [--json FILE] [--before CHECKOUT]
                                [--seconds N] [--rounds N] [--shares N]
       tools/bench.sh attaches [--json FILE] [--exports N] [--sandbox]
       tools/bench.sh clients [--json FILE] [--count N] [--requests N]
                              [--source-addresses N] [--kinds KIND ...]
                              [--url URL --ca-file FILE --token TOKEN]

The first measures create, snapshot, create from snapshot, clone, clone of a
volume with 1 GiB of data, extend and delete: acme_cinder's driver with the
reference appliance, and Cinder's generic NFS driver (nfs_snapshot_support =
True), alternately in one process, on one btrfs pool, with one NFS server.
Prints the medians, their ratio (acme_cinder to generic: less is better), and
for each operation the HTTP requests, processes and mounts, which do not depend
on the machine. In the sandbox, processes are ten times slower.

  --json FILE       also write the results to this file
  --runs N          runs of the small operations (5)
  --large-runs N    runs of the clone of 1 GiB (3)
  --sandbox         use the sandbox even if the running kernel has NFS

The second measures the appliance alone, as a real process with TLS and SQLite
on disk: requests per second and CPU time per request, for GET /healthz, create,
read and delete, with 1, 4 and 16 clients; creates of the service without HTTP;
and the start, empty and with many shares. It uses the memory engine, and as
root also btrfs on a loop device. Also prints the lower bound: the disk's
commits per second.

  --json FILE         also write the results to this file
  --before CHECKOUT   also measure the code of that folder, alternately
  --seconds N         for each figure (5)
  --rounds N          of everything except the start; prints medians (2)
  --shares N          for the start; 0: do not measure it (10000)

The third measures bursts of 1, 48 and 200 access rules that are put, and
deleted, concurrently, each by its own client, while other shares are exported:
status codes, seconds, and processes that the appliance started.

  --json FILE       also write the results to this file
  --exports N       other exported shares (1000)
  --sandbox         use the sandbox even if the running kernel has NFS

The fourth measures authenticated requests beside clients that only hold
connections (tools/bench/hostile.py): median and 99th percentile, on one
connection and on new ones, and the server's memory.

  --json FILE           also write the results to this file
  --count N             connections of each kind (2000)
  --requests N          for each figure (400)
  --source-addresses N  number of source addresses; 0: only 127.0.0.1 (0)
  --kinds KIND ...      only these kinds
  --url URL             a running appliance, with --ca-file and --token; --pid
                        to report its memory
TEXT
}

# Creates an environment for the appliance of a checkout. Sets BENCH_PYTHON.
ensure_bench() {
    local ACME_TOP=$1 ACME_WORK=$1/.work
    cd "$ACME_TOP"
    ensure_venv "$ACME_WORK/venv/bench" constraints.txt requirements.txt \
        pyproject.toml -- -c constraints.txt -e '.[appliance]'
    BENCH_PYTHON=$ACME_WORK/venv/bench/bin/python
}

bench_appliance() {
    local json='' before='' arguments=() logs=$ACME_WORK/bench-logs
    while [ $# -gt 0 ]; do
        case $1 in
            --json) json=$(realpath -m "${2:?FILE}") ;;
            --before) before=$(realpath -e "${2:?CHECKOUT}") ;;
            --seconds | --rounds | --shares) arguments+=("$1" "${2:?N}") ;;
            -h | --help) usage && exit 0 ;;
            *) usage >&2 && exit 2 ;;
        esac
        shift 2
    done
    ensure_packages appliance
    if [ -n "$before" ]; then
        ensure_bench "$before"
        arguments+=(--before "$before" "$BENCH_PYTHON")
    fi
    ensure_bench "$ACME_TOP"
    rm -rf "$logs"
    mkdir -p "$logs"
    "$BENCH_PYTHON" -m tools.bench.appliance --json "$logs/results.json" \
        --logs "$logs" --scratch "$ACME_WORK" "${arguments[@]}" ||
        fail "the measurement failed; logs are in $logs"
    [ -z "$json" ] || cp "$logs/results.json" "$json"
}

bench_attaches() {
    local json='' kind=() arguments=() logs=$ACME_WORK/bench-logs
    while [ $# -gt 0 ]; do
        case $1 in
            --json)
                json=$(realpath -m "${2:?FILE}")
                shift
                ;;
            --exports)
                arguments+=("$1" "${2:?N}")
                shift
                ;;
            --sandbox) kind=(--sandbox) ;;
            -h | --help) usage && exit 0 ;;
            *) usage >&2 && exit 2 ;;
        esac
        shift
    done
    ensure_demo "${kind[@]}"
    rm -rf "$logs"
    mkdir -p "$logs"
    tools/sandbox.sh "${kind[@]}" --share "$logs" run -- \
        "$DEMO_PYTHON" -W ignore -m tools.bench.attaches \
        --json "$logs/results.json" --logs "$logs" "${arguments[@]}" ||
        fail "the measurement failed; logs are in $logs"
    [ -z "$json" ] || cp "$logs/results.json" "$json"
}

if [ "${1:-}" = attaches ]; then
    shift
    cd "$ACME_TOP"
    bench_attaches "$@"
    exit
fi

if [ "${1:-}" = appliance ]; then
    shift
    cd "$ACME_TOP"
    bench_appliance "$@"
    exit
fi

if [ "${1:-}" = clients ]; then
    shift
    cd "$ACME_TOP"
    ensure_bench "$ACME_TOP"
    exec "$BENCH_PYTHON" -m tools.bench.clients "$@"
fi

JSON='' KIND=() RUNS=()
while [ $# -gt 0 ]; do
    case $1 in
        --json)
            JSON=$(realpath -m "${2:?FILE}")
            shift
            ;;
        --runs | --large-runs)
            RUNS+=("$1" "${2:?N}")
            shift
            ;;
        --sandbox) KIND=(--sandbox) ;;
        -h | --help) usage && exit 0 ;;
        *) usage >&2 && exit 2 ;;
    esac
    shift
done

cd "$ACME_TOP"
ensure_demo "${KIND[@]}"
LOGS=$ACME_WORK/bench-logs
rm -rf "$LOGS"
mkdir -p "$LOGS"
if ! tools/sandbox.sh "${KIND[@]}" --share "$LOGS" run -- \
    "$DEMO_PYTHON" -W ignore -m tools.bench.main --json "$LOGS/results.json" \
    --logs "$LOGS" "${RUNS[@]}"; then
    fail "the measurement failed; logs are in $LOGS"
fi
[ -z "$JSON" ] || cp "$LOGS/results.json" "$JSON"
