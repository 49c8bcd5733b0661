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
# Times of the driver against Cinder's generic NFS driver. See --help.
set -euo pipefail
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() {
    cat <<'TEXT'
usage: tools/bench.sh [--json FILE] [--runs N] [--large-runs N] [--sandbox]

Measures create, snapshot, create from snapshot, clone, clone of a volume with
1 GiB of data, extend and delete: acme_cinder's driver on the reference
appliance against Cinder's generic NFS driver (nfs_snapshot_support = True),
both in one process, on one btrfs pool, over one NFS server, in turns. Prints
the medians, their ratio (ours over theirs: small is good), and for each
operation the HTTP requests, processes and mounts, which are the same on every
machine. In the sandbox a process costs ten times what it costs elsewhere.

  --json FILE       write the results there as well
  --runs N          runs of the small operations (5)
  --large-runs N    runs of the clone of 1 GiB (3)
  --sandbox         use the sandbox even where the running kernel has NFS
TEXT
}

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
