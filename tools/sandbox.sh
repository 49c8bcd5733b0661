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
# Runs a command with an NFS server and client, btrfs and loop devices, on any
# machine, isolated from the host's exports and mounts. See --help.
set -u
SANDBOX_HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/sandbox
# shellcheck source=tools/sandbox/host.sh
. "$SANDBOX_HERE/host.sh"

usage() {
    cat <<'TEXT'
usage: tools/sandbox.sh [OPTIONS] run [OPTIONS] -- CMD [ARG...]
       tools/sandbox.sh [OPTIONS] start [OPTIONS] NAME
       tools/sandbox.sh exec NAME -- CMD [ARG...]
       tools/sandbox.sh shell NAME
       tools/sandbox.sh stop NAME
       tools/sandbox.sh list
       tools/sandbox.sh [OPTIONS] check

Runs CMD in a sandbox with a real NFS server and client, btrfs and loop
devices, in the current folder, with the current environment; streams its
output and returns its exit code. Does not change the host's exports or mounts.
A sandbox has one of two kinds: native, the running kernel in its own
namespaces, if it has NFS and the caller is root; otherwise guest, a
user-mode-linux kernel, which any user can start. A guest has the host's files
read-only: its writes are lost, except in folders given with --share.

  --sandbox      always a guest          --native       never a guest
  --kernel DIR   a guest with the kernel of a later release of Debian: DIR has
                 its packages user-mode-linux and libc6, unpacked with dpkg -x
                 (root only)
  --share DIR    a folder that the guest can write (repeatable)
  --memory MIB   the guest's memory (2560)
  --scratch GIB  size of the scratch disk, sparse (12)
  --life SECONDS maximum lifetime of the sandbox (3600; start: 14400)

Inside, SANDBOX_KIND is guest or native. SANDBOX_SCRATCH is a large folder for
pools and other files, removed at the end. SANDBOX_EXPORT_ROOT is the NFS
server's root ([exports] rootdir=). After mounting something over it, run
tools/sandbox/nfs.sh restart.
"run" always ends its sandbox. "start" keeps one until "stop".
"check" prints the kind for this machine, and why.
TEXT
}

die() {
    sandbox_say "sandbox: $*"
    exit 2
}

choose_kind() {
    local why
    if [ "$SANDBOX_WANTED" != guest ]; then
        why=$(native_obstacle)
        [ -n "$why" ] || { SANDBOX_KIND=native && return; }
        [ "$SANDBOX_WANTED" != native ] || die "no native sandbox: $why"
    fi
    why=$(uml_obstacle)
    [ -z "$why" ] || die "no guest: $why (install user-mode-linux," \
        "nfs-kernel-server, nfs-common, e2fsprogs, gcc)"
    SANDBOX_KIND=guest
}

existing() {
    SANDBOX_DIR=$SANDBOX_BASE/$1
    [ -e "$SANDBOX_DIR/settings" ] || die "no sandbox named $1"
    # shellcheck source=/dev/null
    . "$SANDBOX_DIR/settings"
    sandbox_is_usable "$SANDBOX_DIR" || die "sandbox $1 has ended"
}

run_once() {
    mkdir -p "$SANDBOX_BASE"
    SANDBOX_DIR=$(mktemp -d "$SANDBOX_BASE/run.XXXXXX")
    trap 'sandbox_stop "$SANDBOX_DIR"' EXIT
    trap 'sandbox_interrupt; exit 130' INT TERM HUP
    sandbox_start "$SANDBOX_DIR" $$ || exit 125
    sandbox_exec "$SANDBOX_DIR" "$@"
}

start_named() {
    [[ $1 =~ ^[A-Za-z0-9_-]{1,32}$ ]] || die "not a name for a sandbox: $1"
    SANDBOX_DIR=$SANDBOX_BASE/$1
    if [ -e "$SANDBOX_DIR" ]; then
        [ "$(sandbox_state "$SANDBOX_DIR")" != ready ] ||
            die "$1 is running; end it with: tools/sandbox.sh stop $1"
        sandbox_stop "$SANDBOX_DIR" || exit 1
    fi
    mkdir -p "$SANDBOX_BASE"
    sandbox_start "$SANDBOX_DIR" 0 || { sandbox_stop "$SANDBOX_DIR"; exit 125; }
}

shell_in() {
    if [ "$SANDBOX_KIND" = native ]; then
        exec nsenter -t "$(cat "$SANDBOX_DIR/init.pid")" -m -n -p /bin/bash -l
    fi
    exec python3 "$SANDBOX_HERE/terminal.py" "$SANDBOX_DIR"
}

list_sandboxes() {
    local dir
    for dir in "$SANDBOX_BASE"/*/; do
        [ -e "$dir/settings" ] || continue
        printf '%-20s %s\n' "$(basename "$dir")" "$(sandbox_state "$dir")"
    done
}

# Sets REST to what follows the options.
parse_options() {
    while [ $# -gt 0 ]; do
        case $1 in
            --sandbox) SANDBOX_WANTED=guest ;;
            --native) SANDBOX_WANTED=native ;;
            --kernel) SANDBOX_KERNEL=$(realpath "$2") && shift ;;
            --share) SANDBOX_SHARES+=("$(realpath "$2")") && shift ;;
            --memory) SANDBOX_MEMORY_MIB=$2 && shift ;;
            --scratch) SANDBOX_SCRATCH_GIB=$2 && shift ;;
            --life) SANDBOX_LIFE_SECONDS=$2 && shift ;;
            -h | --help) usage && exit 0 ;;
            --) shift && break ;;
            -*) die "unknown option $1; see --help" ;;
            *) break ;;
        esac
        shift
    done
    REST=("$@")
}

# Starts this script again, where it sees the kernel of --kernel.
use_kernel() {
    [ -x "$SANDBOX_KERNEL/usr/bin/linux.uml" ] ||
        die "no usr/bin/linux.uml in $SANDBOX_KERNEL"
    export ACME_SANDBOX=1 SANDBOX_KERNEL_USED=$SANDBOX_KERNEL
    exec python3 "$SANDBOX_HERE/kernel.py" "$SANDBOX_KERNEL" \
        "$BASH" "${BASH_SOURCE[0]}" "$@"
}

main() {
    local verb
    parse_options "$@"
    verb=${REST[0]:-}
    case $verb in
        run | start | check) parse_options "${REST[@]:1}" ;;
        *) REST=("${REST[@]:1}") ;;
    esac
    [ "$SANDBOX_KERNEL" = "${SANDBOX_KERNEL_USED:-}" ] || use_kernel "$@"
    set -- "${REST[@]}"
    case $verb in
        run | start | check) choose_kind ;;
        exec | shell) existing "${1:?NAME}" && shift ;;
    esac
    [ "${1:-}" != -- ] || shift
    export SANDBOX_LIFE_SECONDS SANDBOX_MEMORY_MIB SANDBOX_SCRATCH_GIB
    case $verb in
        run)
            [ $# -gt 0 ] || die "run: no command"
            : "${SANDBOX_LIFE_SECONDS:=3600}"
            run_once "$@"
            ;;
        start)
            : "${SANDBOX_LIFE_SECONDS:=14400}"
            start_named "${1:?NAME}"
            ;;
        supervise)
            # shellcheck source=/dev/null
            . "$1/settings"
            sandbox_supervise "$1" "$2"
            ;;
        exec)
            trap 'sandbox_interrupt; exit 130' INT TERM HUP
            sandbox_exec "$SANDBOX_DIR" "$@"
            ;;
        shell) shell_in ;;
        stop)
            [ -e "$SANDBOX_BASE/${1:?NAME}/settings" ] || die "no sandbox $1"
            sandbox_stop "$SANDBOX_BASE/$1"
            ;;
        list) list_sandboxes ;;
        check)
            echo "$SANDBOX_KIND"
            local why
            why=$(native_obstacle)
            [ -z "$why" ] || sandbox_say "native is not possible here: $why"
            ;;
        *)
            usage >&2
            exit 2
            ;;
    esac
}

SANDBOX_WANTED=${ACME_SANDBOX:+guest} SANDBOX_SHARES=()
SANDBOX_KERNEL=${SANDBOX_KERNEL_USED:-}
: "${SANDBOX_MEMORY_MIB:=2560}" "${SANDBOX_SCRATCH_GIB:=12}"
: "${SANDBOX_LIFE_SECONDS:=}"
main "$@"
