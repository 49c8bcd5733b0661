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
# An NFS server and client for this mount and network namespace only. Sourced
# by the first process of a guest or native sandbox; needs SANDBOX_EXPORT_ROOT.
# As a command inside a sandbox it restarts the NFS server, for example after a
# pool was mounted over the export root.
# shellcheck shell=bash

# Waits at most 10 s for a command to succeed.
nfs_wait_for() {
    local tries
    for ((tries = 0; tries < 100; tries++)); do
        "$@" >/dev/null 2>&1 && return 0
        sleep 0.1
    done
    echo "gave up waiting for: $*" >&2
    return 1
}

# Hides what belongs to the host's own NFS server, if it has one.
nfs_private_run() {
    mount -t tmpfs -o mode=755 tmpfs /run || return 1
    mkdir -p /run/lock /run/rpcbind /run/user
}

nfs_private_files() {
    mount -t tmpfs -o mode=755 tmpfs /var/lib/nfs || return 1
    mkdir -p /var/lib/nfs/{sm,sm.bak,v4recovery,rpc_pipefs,nfsdcld}
    chown statd:nogroup /var/lib/nfs/sm /var/lib/nfs/sm.bak 2>/dev/null
    : >/var/lib/nfs/etab
    : >/var/lib/nfs/rmtab
    : >/run/acme-exports
    cat >/run/acme-nfs.conf <<CONF
[exports]
rootdir=$SANDBOX_EXPORT_ROOT
CONF
    mkdir -p /etc/exports.d /etc/nfs.conf.d
    touch /etc/exports /etc/nfs.conf
    mount -t tmpfs -o mode=755 tmpfs /etc/exports.d || return 1
    mount -t tmpfs -o mode=755 tmpfs /etc/nfs.conf.d || return 1
    mount --bind /run/acme-exports /etc/exports || return 1
    mount --bind /run/acme-nfs.conf /etc/nfs.conf || return 1
    mkdir -p "$SANDBOX_EXPORT_ROOT"
}

nfs_start() {
    local module
    for module in loop lockd nfs nfsv4 nfsd btrfs; do
        modprobe "$module" 2>/dev/null
    done
    mount -t rpc_pipefs sunrpc /var/lib/nfs/rpc_pipefs || return 1
    mount -t nfsd nfsd /proc/fs/nfsd || return 1
    rpcbind -w || return 1
    nfs_wait_for test -S /run/rpcbind.sock || return 1
    # Tells the server that there were no clients before: no grace time.
    nfsdcld || return 1
    nfs_servers
}

# Nobody has locks to reclaim here. Until that is known, the first lock waits
# (and qemu-img takes one): for nfsd's own time of grace, which nfsdcld ends,
# and for lockd's, 50 s, which can be set for all namespaces only: by its
# time-out, of which the time of grace is a multiple. Read when lockd starts.
nfs_servers() {
    local lockd=/proc/sys/fs/nfs timeout grace
    echo 10 >/proc/fs/nfsd/nfsv4leasetime
    echo 10 >/proc/fs/nfsd/nfsv4gracetime
    [ -e /run/rpc.statd.pid ] || rpc.statd --no-notify || return 1
    rpc.mountd || return 1
    pidof rpc.mountd >/run/acme-mountd.pid
    timeout=$(cat $lockd/nlm_timeout) grace=$(cat $lockd/nlm_grace_period)
    echo 3 >$lockd/nlm_timeout
    echo 3 >$lockd/nlm_grace_period
    rpc.nfsd 8 || return 1
    echo "${grace:-0}" >$lockd/nlm_grace_period
    echo "${timeout:-10}" >$lockd/nlm_timeout
}

# The processes of this sandbox only: pidof also sees other namespaces' ones
# where the PID namespace is shared.
nfs_servers_stop() {
    local pid
    rpc.nfsd 0
    for pid in $(</run/acme-mountd.pid); do
        kill "$pid"
        nfs_wait_for test ! -e "/proc/$pid" || return 1
    done
}

nfs_stop() {
    umount -a -f -l -t nfs,nfs4 2>/dev/null
    exportfs -ua 2>/dev/null
    rpc.nfsd 0
    umount /proc/fs/nfsd 2>/dev/null
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    case ${1:-} in
        restart) nfs_servers_stop && nfs_servers ;;
        *) echo "usage: nfs.sh restart" >&2; exit 2 ;;
    esac
fi
