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
# A real Cinder on a real appliance over real NFS, step by step. See --help.
set -euo pipefail
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() {
    cat <<'TEXT'
usage: tools/demo.sh [--tour] [--keep] [--sandbox] [--help]

Installs what it needs (system packages with apt, the rest below .work/),
then starts the reference appliance (TLS, a token, a btrfs pool in a loop
file, the kernel's NFS server) and a real Cinder 29 (API, scheduler and volume
service) with acme_cinder's driver, and makes, attaches, writes, extends,
snapshots, clones, images and deletes volumes through Cinder's API. Every step
is verified by content hashes and by looking at the appliance. At the end it
proves that nothing is left. Exit code 0: all of it held.

  --tour     show what else there is: retype, extra specs, transfer, busy
             volumes, scheduling
  --keep     leave all of it running, and say how to use and end it
  --sandbox  use a kernel in a process even where the running kernel has NFS

The machine's own exports and mounts are not touched: it all happens in
namespaces of its own where the kernel has NFS and this runs as root, else in a
user-mode-linux guest. Logs are in .work/demo-logs. The first run downloads
about 150 MB; after that a run takes one to five minutes.
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

It is all still running, for four hours at most:

  tools/sandbox.sh shell $NAME      a shell where it runs. In there:
      . .work/demo-logs/openrc
      cinder create 1 --name mine; cinder list; cinder service-list
      acme status                     the appliance's own view
  tools/sandbox.sh stop $NAME       the end of all of it

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
