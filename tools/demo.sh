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
# A real Cinder and a real appliance over real NFS, step by step. See --help.
set -euo pipefail
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() {
    cat <<'TEXT'
usage: tools/demo.sh [--tour] [--keep] [--sandbox] [--help]

Installs its requirements (system packages with apt, the rest in .work/). Then
starts the reference appliance (TLS, a token, two btrfs pools in loop files,
the kernel's NFS server) and a real Cinder 29 (API, scheduler and volume service)
with acme_cinder's driver. Creates, attaches, writes, extends, snapshots,
clones, images and deletes volumes through Cinder's API. Verifies every step by
content hashes and by inspecting the appliance, and at the end verifies that
nothing is left. Exit code 0: all checks passed.

  --tour     show more features: moves between pools, thick, discard, retype,
             extra specs, QoS, transfer, manage, revert, busy volumes
  --keep     leave everything running, and print how to use and stop it
  --sandbox  use a kernel in a process even if the running kernel has NFS

Does not change the machine's exports and mounts: it runs in separate namespaces
if the kernel has NFS and the user is root, otherwise in a user-mode-linux
guest. Logs are in .work/demo-logs. The first run downloads about 150 MB; later
runs take one to five minutes.
TEXT
}

NAME=acme-demo
KEEP='' KIND=() TOUR=()
while [ $# -gt 0 ]; do
    case $1 in
        --keep) KEEP=--keep ;;
        --tour) TOUR=(--tour) ;;
        --sandbox) KIND=(--sandbox) ;;
        -h | --help) usage && exit 0 ;;
        *) usage >&2 && exit 2 ;;
    esac
    shift
done

tell_how_to_use() {
    cat <<TEXT

Everything keeps running, for at most four hours:

  tools/sandbox.sh shell $NAME      a shell inside. There:
      . .work/demo-logs/openrc
      cinder create 1 --name mine; cinder list; cinder service-list
      acme status                     the appliance's own view
  tools/sandbox.sh stop $NAME       stop everything

Logs: $LOGS
TEXT
}

cd "$ACME_TOP"
ensure_demo "${KIND[@]}"
LOGS=$ACME_WORK/demo-logs
rm -rf "$LOGS"
mkdir -p "$LOGS"
DEMO=("$DEMO_PYTHON" -W ignore -m tools.demo.main --logs "$LOGS"
    "${TOUR[@]}")
KIND+=(--share "$LOGS")
KIND_NAME=$(tools/sandbox.sh "${KIND[@]}" check 2>/dev/null)
say "starting a machine with NFS ($KIND_NAME)"
if [ -z "$KEEP" ]; then
    exec tools/sandbox.sh "${KIND[@]}" run -- "${DEMO[@]}"
fi
tools/sandbox.sh "${KIND[@]}" start "$NAME"
if ! tools/sandbox.sh exec "$NAME" -- "${DEMO[@]}" --keep; then
    tools/sandbox.sh stop "$NAME"
    exit 1
fi
tell_how_to_use
