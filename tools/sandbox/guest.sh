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
# guest.sh DIR: the guest's first process after guest-init.sh. DIR is the
# sandbox's folder on the host. Only it and the --share folders are writable.
# Starts NFS, reports "ready", and runs jobs until the file "stop" exists.
set -u
sandbox=$1
here=${0%/*}
cd /

# Kernels from 6.10 on take a folder for hostfs by the old mount(2) only.
mount_hostfs() {
    LIBMOUNT_FORCE_MOUNT2=always mount -t hostfs none "$1" -o "$1"
}
mount_hostfs "$sandbox" || poweroff -d -f
# shellcheck source=/dev/null
. "$sandbox/settings"
exec >>"$sandbox/sandbox.log" 2>&1

for share in "${SANDBOX_SHARES[@]}"; do
    mkdir -p "$share" && mount_hostfs "$share"
done
hostname acme-sandbox
ip link set lo up

# shellcheck source=tools/sandbox/nfs.sh
. "$here/nfs.sh"
scratch_disk() {
    mkdir -p "$SANDBOX_SCRATCH" &&
        mount -t ext4 -o noatime,discard /dev/ubda "$SANDBOX_SCRATCH" &&
        mkdir -p "$SANDBOX_SCRATCH/tmp" && chmod 1777 "$SANDBOX_SCRATCH/tmp"
}
if ! { nfs_private_run && nfs_private_files && scratch_disk &&
    nfs_start; }; then
    echo failed >"$sandbox/state"
    poweroff -d -f
fi
echo ready >"$sandbox/state"

# A job is a folder jobs/N. The file rc is its exit code, written at its end.
run_job() {
    setsid -w /bin/bash "$1/script" </dev/null >"$1/stdout" 2>"$1/stderr" &
    echo $! >"$1/pid"
    wait $!
    echo $? >"$1/rc.new"
    mv "$1/rc.new" "$1/rc"
}

# Pause by a read that times out: starting sleep would take 10 ms.
mkfifo /run/acme-never
exec 9<>/run/acme-never
while [ ! -e "$sandbox/stop" ]; do
    for script in "$sandbox"/jobs/*/script; do
        job=${script%/script}
        if [ -e "$script" ] && [ ! -e "$job/taken" ]; then
            : >"$job/taken"
            run_job "$job" &
        fi
        if [ -e "$job/signal" ] && [ -e "$job/pid" ]; then
            read -r pid <"$job/pid"
            rm -f "$job/signal"
            kill -TERM -- "-$pid"
        fi
    done
    read -r -t 0.1 -u 9
done
nfs_stop
umount -a -t btrfs 2>/dev/null
umount "$SANDBOX_SCRATCH" 2>/dev/null
echo stopped >"$sandbox/state"
poweroff -d -f
