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
# The host's side of both kinds of sandbox. Sourced by sandbox.sh.
# shellcheck shell=bash

# shellcheck disable=SC2034 # used by sandbox.sh
SANDBOX_BASE=${ACME_SANDBOXES:-/var/tmp/acme-sandboxes-$UID}
SANDBOX_BOOT_SECONDS=180
# From the request to stop until it is killed.
SANDBOX_GRACE_SECONDS=60
SANDBOX_TICK_SECONDS=5

sandbox_say() { printf '%s\n' "$*" >&2; }

# sandbox_complain DIR TEXT: says it, with the end of the sandbox's logs.
sandbox_complain() {
    local dir=$1
    sandbox_say "sandbox: $2; the end of its logs:"
    tail -n 20 "$dir/console.log" "$dir/sandbox.log" "$dir/supervisor.log" \
        >&2 2>/dev/null
}

# Prints why this machine cannot run a native sandbox; nothing if it can.
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
        2>/dev/null || echo "no permission to create namespaces"
}

uml_obstacle() {
    local name
    for name in linux.uml rpc.nfsd nfsdcld mkfs.ext4 taskset setsid; do
        command -v "$name" >/dev/null || { echo "no $name command"; return; }
    done
    ! cpu_has_amx || command -v gcc >/dev/null ||
        echo "no gcc command, which a CPU with AMX requires"
}

cpu_has_amx() { grep -qsw amx_tile /proc/cpuinfo; }

# uml_preload DIR: builds in DIR the library that the guest needs on this CPU,
# and prints its path; prints nothing if it needs none. See xstate.c.
uml_preload() {
    cpu_has_amx || return 0
    gcc -shared -fPIC -O2 -o "$1/xstate.so" "$SANDBOX_HERE/xstate.c" &&
        echo "$1/xstate.so"
}

# uml_cpu DIR: prints the CPU with the fewest sandboxes, and stores it in
# DIR/cpu. Moving between CPUs would make a guest 2 to 4 times slower.
uml_cpu() {
    local part first last cpu best='' count least=9999
    # Two that start at the same time must not choose the same.
    exec 9>"$SANDBOX_BASE/cpu.lock" && flock 9
    for part in $(taskset -pc $$ | sed 's/.*: //; s/,/ /g'); do
        first=${part%-*} last=${part#*-}
        for ((cpu = first; cpu <= last; cpu++)); do
            count=$(cat "$SANDBOX_BASE"/*/cpu 2>/dev/null | grep -cx "$cpu")
            if [ "$count" -lt "$least" ]; then
                best=$cpu least=$count
            fi
        done
    done
    echo "$best" | tee "$1/cpu"
}

# Guest memory is a file: in /dev/shm if that is large enough, which is not the
# default in containers.
uml_memory_folder() {
    local free
    free=$(df --output=avail -m /dev/shm 2>/dev/null | tail -n 1)
    if [ "${free:-0}" -ge "$SANDBOX_MEMORY_MIB" ]; then
        echo /dev/shm
    else
        echo "$1"
    fi
}

# sandbox_create DIR: creates the folder that host and sandbox share.
sandbox_create() {
    local dir=$1
    mkdir -p "$dir/jobs" && chmod 700 "$dir"
    {
        echo "SANDBOX_KIND=$SANDBOX_KIND"
        echo "SANDBOX_SHARES=(${SANDBOX_SHARES[*]@Q})"
        echo SANDBOX_SCRATCH=/run/scratch
        echo SANDBOX_EXPORT_ROOT=/run/export
    } >"$dir/settings"
}

sandbox_boot() {
    local dir=$1 cpu
    if [ "$SANDBOX_KIND" = native ]; then
        exec unshare --mount --net --pid --fork --kill-child \
            --propagation private "$SANDBOX_HERE/native-init.sh" "$dir"
    fi
    truncate -s "${SANDBOX_SCRATCH_GIB}G" "$dir/scratch.img"
    mkfs.ext4 -q -F -m 0 -E lazy_itable_init=1,lazy_journal_init=1,nodiscard \
        "$dir/scratch.img"
    TMPDIR=$(uml_memory_folder "$dir")
    LD_PRELOAD=$(uml_preload "$dir") || return
    cpu=$(uml_cpu "$dir")
    export TMPDIR LD_PRELOAD
    exec taskset -c "$cpu" linux.uml "mem=${SANDBOX_MEMORY_MIB}M" \
        rootfstype=hostfs rootflags=/ ro "init=$SANDBOX_HERE/guest-init.sh" \
        "acme_sandbox=$dir" "ubda=$dir/scratch.img" con=null con0=null,fd:1 \
        con1=pts quiet
}

# Removes the remains of a killed native sandbox: nfsd's kernel threads keep
# their network namespace alive, and loop devices are global.
sandbox_sweep() {
    local dir=$1 device inode
    [ "$SANDBOX_KIND" = native ] || { rm -f "$dir/scratch.img"; return; }
    if [ -n "${SANDBOX_NS_OPEN:-}" ]; then
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

# Opens a native sandbox's namespaces for sandbox_sweep.
sandbox_hold() {
    local dir=$1 boot=$2 init
    if [ "$SANDBOX_KIND" = native ] && [ -z "${SANDBOX_NS_OPEN:-}" ] &&
        [ -e "$dir/state" ] && init=$(pgrep -P "$boot"); then
        exec 7<"/proc/$init/ns/net" 8<"/proc/$init/ns/mnt"
        SANDBOX_NS_OPEN=1
        echo "$init" >"$dir/init.pid"
    fi
}

# sandbox_tick DIR BOOT: wakes up a guest that lost its timer. Linux 6.1 sometimes
# does: its idle loop spins, no tick comes, and everything inside waits forever.
# A signal like the timer's own makes it set a new one; one too many does no
# harm.
sandbox_tick() {
    local dir=$1 boot=$2
    if [ "$SANDBOX_KIND" = guest ] && [ -e "$dir/state" ] &&
        [ "$SECONDS" -ge "${SANDBOX_TICK_AT:-0}" ]; then
        SANDBOX_TICK_AT=$((SECONDS + SANDBOX_TICK_SECONDS))
        kill -ALRM "$boot" 2>/dev/null
    fi
}

# sandbox_supervise DIR OWNER: boots a sandbox and supervises it. Ends it on
# request, when the process OWNER (0: none) ends, or at the end of its
# lifetime, and removes its remains.
sandbox_supervise() {
    local dir=$1 owner=$2 child kill_at=''
    set -m # a process group of its own for the sandbox
    ( sandbox_boot "$dir" ) </dev/null >"$dir/console.log" 2>&1 &
    child=$!
    set +m
    while kill -0 "$child" 2>/dev/null; do
        sandbox_hold "$dir" "$child"
        sandbox_tick "$dir" "$child"
        [ "$SECONDS" -lt "$SANDBOX_LIFE_SECONDS" ] || : >"$dir/stop"
        [ "$owner" = 0 ] || kill -0 "$owner" 2>/dev/null || : >"$dir/stop"
        if [ -e "$dir/stop" ]; then
            : "${kill_at:=$((SECONDS + SANDBOX_GRACE_SECONDS))}"
            [ "$SECONDS" -lt "$kill_at" ] || kill -KILL -- "-$child"
        fi
        sleep 0.2
    done
    sandbox_sweep "$dir"
    rm -f "$dir/cpu"
    echo gone >"$dir/state"
    [ "$owner" = 0 ] || kill -0 "$owner" 2>/dev/null || rm -rf "$dir"
}

sandbox_state() { cat "$1/state" 2>/dev/null; }

sandbox_is_usable() {
    [ "$(sandbox_state "$1")" = ready ] &&
        { [ "$SANDBOX_KIND" != native ] || [ -s "$1/init.pid" ]; }
}

# Starts a sandbox's supervisor and waits until the sandbox is usable.
sandbox_start() {
    local dir=$1 owner=$2 tries
    sandbox_create "$dir"
    setsid "$SANDBOX_HERE/../sandbox.sh" supervise "$dir" "$owner" \
        </dev/null >"$dir/supervisor.log" 2>&1 &
    echo $! >"$dir/supervisor.pid"
    for ((tries = 0; tries < SANDBOX_BOOT_SECONDS * 10; tries++)); do
        sandbox_is_usable "$dir" && return 0
        case $(sandbox_state "$dir") in
            failed | gone | stopped) break ;;
        esac
        kill -0 "$!" 2>/dev/null || break
        sleep 0.1
    done
    sandbox_complain "$dir" "cannot start a sandbox"
    return 1
}

# Ends a sandbox and waits for its supervisor, which removes its remains.
sandbox_stop() {
    local dir=$1 pid end
    : >"$dir/stop"
    pid=$(cat "$dir/supervisor.pid" 2>/dev/null) || return 0
    # Longer than the supervisor waits before it kills: on a loaded machine,
    # ending the NFS server's threads takes time.
    end=$((SECONDS + SANDBOX_GRACE_SECONDS + 180))
    while [ "$SECONDS" -lt "$end" ]; do
        kill -0 "$pid" 2>/dev/null || { rm -rf "$dir"; return 0; }
        sleep 0.1
    done
    sandbox_complain "$dir" "$dir does not end"
    return 1
}

# Prints the script that runs CMD... inside, with the caller's environment and
# folder.
job_script() {
    local kind=$1
    shift
    export -p
    cat <<'EOF'
unset PYTHONDONTWRITEBYTECODE BASH_ENV ENV SHLVL OLDPWD
export TMPDIR=/run/scratch/tmp
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
export SANDBOX_SCRATCH=/run/scratch SANDBOX_EXPORT_ROOT=/run/export
EOF
    echo "export SANDBOX_KIND=$kind"
    # Page faults are 15 to 30 times slower in a guest than on the host.
    [ "$kind" = native ] || echo "export MALLOC_ARENA_MAX=1" \
        "MALLOC_TRIM_THRESHOLD_=268435456 MALLOC_TOP_PAD_=16777216"
    printf 'cd %q || exit 126\n' "$PWD"
    printf 'exec'
    printf ' %q' "$@"
    printf '\n'
}

# sandbox_exec DIR CMD...: runs CMD inside, streams its output, and returns its
# exit code (125: the sandbox ended first).
sandbox_exec() {
    local dir=$1 job code waiter readers
    shift
    job=$(mktemp -d "$dir/jobs/XXXXXX")
    SANDBOX_JOB=$job
    job_script "$SANDBOX_KIND" "$@" >"$job/script.new"
    if [ "$SANDBOX_KIND" = native ]; then
        nsenter -t "$(cat "$dir/init.pid")" -m -n -p \
            /bin/bash "$job/script.new" </dev/null
        return
    fi
    : >"$job/stdout"
    : >"$job/stderr"
    mv "$job/script.new" "$job/script"
    (
        until [ -e "$job/rc" ] || ! sandbox_is_usable "$dir"; do
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

# Forwards Ctrl-C to the command inside.
sandbox_interrupt() {
    [ -z "${SANDBOX_JOB:-}" ] || : >"$SANDBOX_JOB/signal"
}
