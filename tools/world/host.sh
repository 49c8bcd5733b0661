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
# The host's side of both kinds of world. Sourced by sandbox.sh.
# shellcheck shell=bash

# shellcheck disable=SC2034 # used by sandbox.sh
WORLD_BASE=${ACME_WORLDS:-/var/tmp/acme-worlds-$UID}
WORLD_BOOT_SECONDS=180
# From the request to end until it is killed.
WORLD_GRACE_SECONDS=60

world_say() { printf '%s\n' "$*" >&2; }

# The reason why no native world can be made here; empty when one can.
native_obstacle() {
    local name
    [ "$(id -u)" = 0 ] || { echo "not root"; return; }
    for name in loop nfs nfsv4 nfsd btrfs; do
        modprobe "$name" 2>/dev/null
    done
    for name in nfs4 nfsd btrfs; do
        grep -qw "$name" /proc/filesystems ||
            { echo "the kernel has no $name"; return; }
    done
    for name in rpc.nfsd rpc.mountd nfsdcld exportfs rpcbind mount.nfs; do
        command -v "$name" >/dev/null || { echo "no $name command"; return; }
    done
    unshare --mount --net --pid --fork --propagation private sh -c \
        'mount -t proc proc /proc && mount -t nfsd nfsd /proc/fs/nfsd' \
        2>/dev/null || echo "no right to make namespaces"
}

uml_obstacle() {
    local name
    for name in linux.uml rpc.nfsd nfsdcld mkfs.ext4 taskset setsid; do
        command -v "$name" >/dev/null || { echo "no $name command"; return; }
    done
    ! cpu_has_amx || command -v gcc >/dev/null ||
        echo "no gcc command, which a CPU with AMX makes necessary"
}

cpu_has_amx() { grep -qsw amx_tile /proc/cpuinfo; }

# uml_preload DIR: prints the library without which the guest does not start
# on this CPU, made in DIR; nothing where it needs none. See xstate.c.
uml_preload() {
    cpu_has_amx || return 0
    gcc -shared -fPIC -O2 -o "$1/xstate.so" "$WORLD_HERE/xstate.c" &&
        echo "$1/xstate.so"
}

# uml_cpu DIR: moving between CPUs makes a guest 2 to 4 times slower, so it
# gets one for itself: that with the fewest other worlds, noted in DIR/cpu.
uml_cpu() {
    local part first last cpu best='' count least=9999
    for part in $(taskset -pc $$ | sed 's/.*: //; s/,/ /g'); do
        first=${part%-*} last=${part#*-}
        for ((cpu = first; cpu <= last; cpu++)); do
            count=$(cat "$WORLD_BASE"/*/cpu 2>/dev/null | grep -cx "$cpu")
            if [ "$count" -lt "$least" ]; then
                best=$cpu least=$count
            fi
        done
    done
    echo "$best" | tee "$1/cpu"
}

# Guest memory is a file: in /dev/shm where that is large enough, which it
# is not in a container by default.
uml_memory_folder() {
    local free
    free=$(df --output=avail -m /dev/shm 2>/dev/null | tail -n 1)
    if [ "${free:-0}" -ge "$WORLD_MEMORY_MIB" ]; then
        echo /dev/shm
    else
        echo "$1"
    fi
}

# world_create DIR: the folder that host and world share.
world_create() {
    local dir=$1
    mkdir -p "$dir/jobs" && chmod 700 "$dir"
    {
        echo "WORLD_KIND=$WORLD_KIND"
        echo "WORLD_SHARES=(${WORLD_SHARES[*]@Q})"
        echo WORLD_SCRATCH=/run/scratch
        echo WORLD_EXPORT_ROOT=/run/export
    } >"$dir/settings"
}

world_boot() {
    local dir=$1 cpu
    if [ "$WORLD_KIND" = native ]; then
        exec unshare --mount --net --pid --fork --kill-child \
            --propagation private "$WORLD_HERE/native-init.sh" "$dir"
    fi
    truncate -s "${WORLD_SCRATCH_GIB}G" "$dir/scratch.img"
    mkfs.ext4 -q -F -m 0 -E lazy_itable_init=1,lazy_journal_init=1,nodiscard \
        "$dir/scratch.img"
    TMPDIR=$(uml_memory_folder "$dir")
    LD_PRELOAD=$(uml_preload "$dir") || return
    cpu=$(uml_cpu "$dir")
    export TMPDIR LD_PRELOAD
    exec taskset -c "$cpu" linux.uml "mem=${WORLD_MEMORY_MIB}M" \
        rootfstype=hostfs rootflags=/ ro "init=$WORLD_HERE/guest-init.sh" \
        "acme_world=$dir" "ubda=$dir/scratch.img" con=null con0=null,fd:1 \
        con1=pts quiet
}

# What a native world may leave behind when it did not end by itself: nfsd's
# kernel threads keep their network namespace alive, loop devices are global.
world_sweep() {
    local dir=$1 device inode
    [ "$WORLD_KIND" = native ] || { rm -f "$dir/scratch.img"; return; }
    if [ -n "${WORLD_NS_OPEN:-}" ]; then
        nsenter --net=/proc/self/fd/7 --mount=/proc/self/fd/8 \
            rpc.nfsd 0 2>/dev/null
        exec 7<&- 8<&-
    fi
    while read -r device inode; do
        [ -n "$(find "$dir/scratch" -inum "$inode" 2>/dev/null)" ] &&
            losetup -d "$device"
    done < <(losetup --list --noheadings -O NAME,BACK-INO)
    rm -rf --one-file-system "$dir/scratch"
}

# Keeps hold of a native world's namespaces for world_sweep.
world_hold() {
    local dir=$1 boot=$2 init
    if [ "$WORLD_KIND" = native ] && [ -z "${WORLD_NS_OPEN:-}" ] &&
        [ -e "$dir/state" ] && init=$(pgrep -P "$boot"); then
        exec 7<"/proc/$init/ns/net" 8<"/proc/$init/ns/mnt"
        WORLD_NS_OPEN=1
        echo "$init" >"$dir/init.pid"
    fi
}

# world_supervise DIR OWNER: boots a world and outlives it. The world ends
# when it is told to, when the process OWNER (0: none) is gone, or when its
# life time is over; whatever is left of it then is removed.
world_supervise() {
    local dir=$1 owner=$2 child kill_at=''
    set -m # a process group of its own for the world
    ( world_boot "$dir" ) </dev/null >"$dir/console.log" 2>&1 &
    child=$!
    set +m
    while kill -0 "$child" 2>/dev/null; do
        world_hold "$dir" "$child"
        [ "$SECONDS" -lt "$WORLD_LIFE_SECONDS" ] || : >"$dir/stop"
        [ "$owner" = 0 ] || kill -0 "$owner" 2>/dev/null || : >"$dir/stop"
        if [ -e "$dir/stop" ]; then
            : "${kill_at:=$((SECONDS + WORLD_GRACE_SECONDS))}"
            [ "$SECONDS" -lt "$kill_at" ] || kill -KILL -- "-$child"
        fi
        sleep 0.2
    done
    world_sweep "$dir"
    rm -f "$dir/cpu"
    echo gone >"$dir/state"
    [ "$owner" = 0 ] || kill -0 "$owner" 2>/dev/null || rm -rf "$dir"
}

world_state() { cat "$1/state" 2>/dev/null; }

world_is_usable() {
    [ "$(world_state "$1")" = ready ] &&
        { [ "$WORLD_KIND" != native ] || [ -s "$1/init.pid" ]; }
}

# Starts a world's supervisor and waits until the world is usable.
world_start() {
    local dir=$1 owner=$2 tries
    world_create "$dir"
    setsid "$WORLD_HERE/../sandbox.sh" supervise "$dir" "$owner" \
        </dev/null >"$dir/supervisor.log" 2>&1 &
    echo $! >"$dir/supervisor.pid"
    for ((tries = 0; tries < WORLD_BOOT_SECONDS * 10; tries++)); do
        world_is_usable "$dir" && return 0
        case $(world_state "$dir") in
            failed | gone | stopped) break ;;
        esac
        kill -0 "$!" 2>/dev/null || break
        sleep 0.1
    done
    world_say "sandbox: no NFS world came up; its last words:"
    tail -n 20 "$dir/console.log" "$dir/world.log" "$dir/supervisor.log" \
        >&2 2>/dev/null
    return 1
}

# Ends a world and waits for its supervisor, which removes what is left.
world_stop() {
    local dir=$1 pid end
    : >"$dir/stop"
    pid=$(cat "$dir/supervisor.pid" 2>/dev/null) || return 0
    # Longer than the supervisor waits before it kills: on a machine with
    # much other load, ending the NFS server's threads alone takes a while.
    end=$((SECONDS + WORLD_GRACE_SECONDS + 180))
    while [ "$SECONDS" -lt "$end" ]; do
        kill -0 "$pid" 2>/dev/null || { rm -rf "$dir"; return 0; }
        sleep 0.1
    done
    world_say "sandbox: the world in $dir did not end; its last words:"
    tail -n 20 "$dir/console.log" "$dir/world.log" "$dir/supervisor.log" \
        >&2 2>/dev/null
    return 1
}

# The script that runs CMD... inside: the caller's environment and folder.
job_script() {
    local kind=$1
    shift
    export -p
    cat <<'EOF'
unset PYTHONDONTWRITEBYTECODE BASH_ENV ENV SHLVL OLDPWD
export TMPDIR=/run/scratch/tmp
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
export WORLD_SCRATCH=/run/scratch WORLD_EXPORT_ROOT=/run/export
EOF
    echo "export WORLD_KIND=$kind"
    # Every page fault costs a guest 15 to 30 times what it costs elsewhere.
    [ "$kind" = native ] || echo "export MALLOC_ARENA_MAX=1" \
        "MALLOC_TRIM_THRESHOLD_=268435456 MALLOC_TOP_PAD_=16777216"
    printf 'cd %q || exit 126\n' "$PWD"
    printf 'exec'
    printf ' %q' "$@"
    printf '\n'
}

# world_exec DIR CMD...: runs it inside, streams its output, returns its
# exit code (125: the world ended first).
world_exec() {
    local dir=$1 job code waiter readers
    shift
    job=$(mktemp -d "$dir/jobs/XXXXXX")
    WORLD_JOB=$job
    job_script "$WORLD_KIND" "$@" >"$job/script.new"
    if [ "$WORLD_KIND" = native ]; then
        nsenter -t "$(cat "$dir/init.pid")" -m -n -p \
            /bin/bash "$job/script.new" </dev/null
        return
    fi
    : >"$job/stdout"
    : >"$job/stderr"
    mv "$job/script.new" "$job/script"
    (
        until [ -e "$job/rc" ] || ! world_is_usable "$dir"; do
            sleep 0.1
        done
    ) &
    waiter=$!
    tail -q -s 0.1 -n +1 --pid=$waiter -f "$job/stderr" >&2 &
    readers=$!
    tail -q -s 0.1 -n +1 --pid=$waiter -f "$job/stdout" &
    wait $! $readers $waiter
    code=$(cat "$job/rc" 2>/dev/null) || code=125
    rm -rf "$job"
    return "$code"
}

# Passes a Ctrl-C on to the command inside.
world_interrupt() {
    [ -z "${WORLD_JOB:-}" ] || : >"$WORLD_JOB/signal"
}
