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
# guest.sh DIR: the guest after its root is made. DIR is the world's folder
# on the host, the only host folder that is writable besides the --share
# ones. Starts NFS, says ready, runs jobs until told to stop.
set -u
world=$1
here=${0%/*}
cd /
mount -t hostfs none "$world" -o "$world" || poweroff -d -f
# shellcheck source=/dev/null
. "$world/settings"
exec >>"$world/world.log" 2>&1

for share in "${WORLD_SHARES[@]}"; do
    mkdir -p "$share" && mount -t hostfs none "$share" -o "$share"
done
hostname acme-world
ip link set lo up

# shellcheck source=tools/world/nfs.sh
. "$here/nfs.sh"
scratch_disk() {
    mkdir -p "$WORLD_SCRATCH" &&
        mount -t ext4 -o noatime,discard /dev/ubda "$WORLD_SCRATCH" &&
        mkdir -p "$WORLD_SCRATCH/tmp" && chmod 1777 "$WORLD_SCRATCH/tmp"
}
if ! { nfs_private_run && nfs_private_files && scratch_disk && nfs_start; }; then
    echo failed >"$world/state"
    poweroff -d -f
fi
echo ready >"$world/state"

# A job is a folder jobs/N; the file rc in it says that it is over.
run_job() {
    setsid -w /bin/bash "$1/script" </dev/null >"$1/stdout" 2>"$1/stderr" &
    echo $! >"$1/pid"
    wait $!
    echo $? >"$1/rc.new"
    mv "$1/rc.new" "$1/rc"
}

# A read that times out is a pause without a process (a spawn costs 10 ms).
mkfifo /run/acme-never
exec 9<>/run/acme-never
while [ ! -e "$world/stop" ]; do
    for script in "$world"/jobs/*/script; do
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
umount "$WORLD_SCRATCH" 2>/dev/null
echo stopped >"$world/state"
poweroff -d -f
