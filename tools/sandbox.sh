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
# An NFS server and client, btrfs and loop devices for one command, on any
# machine, apart from the host's own exports and mounts. See --help.
set -u
WORLD_HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/world
# shellcheck source=tools/world/host.sh
. "$WORLD_HERE/host.sh"

usage() {
    cat <<'TEXT'
usage: tools/sandbox.sh [OPTIONS] run [OPTIONS] -- CMD [ARG...]
       tools/sandbox.sh [OPTIONS] start [OPTIONS] NAME
       tools/sandbox.sh exec NAME -- CMD [ARG...]
       tools/sandbox.sh shell NAME
       tools/sandbox.sh stop NAME
       tools/sandbox.sh list
       tools/sandbox.sh [OPTIONS] check

Runs CMD where a real NFS server and client, btrfs and loop devices work, in
the current folder, with the current environment; streams its output and
returns its exit code. Neither the host's exports nor its mounts are touched.
Two implementations: the running kernel in namespaces of its own, where it has
NFS and the caller is root; else a user-mode-linux guest, which any user can
start. The guest sees the host's files read-only: what it writes is lost,
except below the folders given with --share.

  --sandbox      always the guest        --native       never the guest
  --share DIR    a folder the guest may write to (again for more)
  --memory MIB   the guest's memory (2560)
  --scratch GIB  size of the scratch disk, sparse (12)
  --life SECONDS the world ends then, whatever happens (3600; start: 14400)

Inside, WORLD_KIND is sandbox or native; WORLD_SCRATCH is a large folder for
pools and other files, gone afterwards; WORLD_EXPORT_ROOT is the folder that
the NFS server takes for its root ([exports] rootdir=). After mounting
something over that one: tools/world/nfs.sh restart.
"run" ends its world on every way out. "start" keeps one until "stop".
"check" says which kind this machine gets, and why.
TEXT
}

die() {
    world_say "sandbox: $*"
    exit 2
}

choose_kind() {
    local why
    if [ "$WORLD_WANTED" != sandbox ]; then
        why=$(native_obstacle)
        [ -n "$why" ] || { WORLD_KIND=native && return; }
        [ "$WORLD_WANTED" != native ] || die "no native world: $why"
    fi
    why=$(uml_obstacle)
    [ -z "$why" ] || die "no sandbox: $why (install user-mode-linux," \
        "nfs-kernel-server, nfs-common, e2fsprogs, gcc)"
    WORLD_KIND=sandbox
}

existing() {
    WORLD_DIR=$WORLD_BASE/$1
    [ -e "$WORLD_DIR/settings" ] || die "no world named $1"
    # shellcheck source=/dev/null
    . "$WORLD_DIR/settings"
    world_is_usable "$WORLD_DIR" || die "world $1 has ended"
}

run_once() {
    mkdir -p "$WORLD_BASE"
    WORLD_DIR=$(mktemp -d "$WORLD_BASE/run.XXXXXX")
    trap 'world_stop "$WORLD_DIR"' EXIT
    trap 'world_interrupt; exit 130' INT TERM HUP
    world_start "$WORLD_DIR" $$ || exit 125
    world_exec "$WORLD_DIR" "$@"
}

start_named() {
    [[ $1 =~ ^[A-Za-z0-9_-]{1,32}$ ]] || die "not a name for a world: $1"
    WORLD_DIR=$WORLD_BASE/$1
    if [ -e "$WORLD_DIR" ]; then
        [ "$(world_state "$WORLD_DIR")" != ready ] ||
            die "$1 is running; end it with: tools/sandbox.sh stop $1"
        world_stop "$WORLD_DIR" || exit 1
    fi
    mkdir -p "$WORLD_BASE"
    world_start "$WORLD_DIR" 0 || { world_stop "$WORLD_DIR"; exit 125; }
}

shell_in() {
    if [ "$WORLD_KIND" = native ]; then
        exec nsenter -t "$(cat "$WORLD_DIR/init.pid")" -m -n -p /bin/bash -l
    fi
    exec python3 "$WORLD_HERE/terminal.py" "$WORLD_DIR"
}

list_worlds() {
    local dir
    for dir in "$WORLD_BASE"/*/; do
        [ -e "$dir/settings" ] || continue
        printf '%-20s %s\n' "$(basename "$dir")" "$(world_state "$dir")"
    done
}

# Sets REST to what follows the options.
parse_options() {
    while [ $# -gt 0 ]; do
        case $1 in
            --sandbox) WORLD_WANTED=sandbox ;;
            --native) WORLD_WANTED=native ;;
            --share) WORLD_SHARES+=("$(realpath "$2")") && shift ;;
            --memory) WORLD_MEMORY_MIB=$2 && shift ;;
            --scratch) WORLD_SCRATCH_GIB=$2 && shift ;;
            --life) WORLD_LIFE_SECONDS=$2 && shift ;;
            -h | --help) usage && exit 0 ;;
            --) shift && break ;;
            -*) die "unknown option $1; see --help" ;;
            *) break ;;
        esac
        shift
    done
    REST=("$@")
}

main() {
    local verb
    parse_options "$@"
    verb=${REST[0]:-}
    case $verb in
        run | start | check) parse_options "${REST[@]:1}" ;;
        *) REST=("${REST[@]:1}") ;;
    esac
    set -- "${REST[@]}"
    case $verb in
        run | start | check) choose_kind ;;
        exec | shell) existing "${1:?NAME}" && shift ;;
    esac
    [ "${1:-}" != -- ] || shift
    export WORLD_LIFE_SECONDS WORLD_MEMORY_MIB WORLD_SCRATCH_GIB
    case $verb in
        run)
            [ $# -gt 0 ] || die "run: no command"
            : "${WORLD_LIFE_SECONDS:=3600}"
            run_once "$@"
            ;;
        start)
            : "${WORLD_LIFE_SECONDS:=14400}"
            start_named "${1:?NAME}"
            ;;
        supervise)
            # shellcheck source=/dev/null
            . "$1/settings"
            world_supervise "$1" "$2"
            ;;
        exec)
            trap 'world_interrupt; exit 130' INT TERM HUP
            world_exec "$WORLD_DIR" "$@"
            ;;
        shell) shell_in ;;
        stop)
            [ -e "$WORLD_BASE/${1:?NAME}/settings" ] || die "no world $1"
            world_stop "$WORLD_BASE/$1"
            ;;
        list) list_worlds ;;
        check)
            echo "$WORLD_KIND"
            local why
            why=$(native_obstacle)
            [ -z "$why" ] || world_say "native is not possible here: $why"
            ;;
        *)
            usage >&2
            exit 2
            ;;
    esac
}

WORLD_WANTED=${ACME_SANDBOX:+sandbox} WORLD_SHARES=()
: "${WORLD_MEMORY_MIB:=2560}" "${WORLD_SCRATCH_GIB:=12}"
: "${WORLD_LIFE_SECONDS:=}"
main "$@"
