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
# native-init.sh DIR: first process of a native world, in its own mount,
# network and process namespaces. Nothing here reaches the host's mounts or
# its exports; /etc/exports and its kind are hidden below private files.
set -u
world=$1
here=${0%/*}
# shellcheck source=/dev/null
. "$world/settings"
exec >>"$world/world.log" 2>&1 </dev/null
mount -t proc proc /proc
ip link set lo up

# shellcheck source=tools/world/nfs.sh
. "$here/nfs.sh"
# Keeps what is written to /etc in here, where the kernel has overlayfs.
private_etc() {
    modprobe overlay 2>/dev/null
    mkdir -p /run/etc/upper /run/etc/work
    mount -t overlay -o \
        lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work \
        overlay /etc || echo "no overlayfs: /etc is the host's"
}
scratch_folder() {
    mkdir -p "$world/scratch/tmp" "$WORLD_SCRATCH" &&
        mount --bind "$world/scratch" "$WORLD_SCRATCH" &&
        chmod 1777 "$WORLD_SCRATCH/tmp"
}
finish() {
    trap - TERM
    nfs_stop
    echo stopped >"$world/state"
    exit 0
}
trap finish TERM
if ! { nfs_private_run && private_etc && nfs_private_files && scratch_folder && nfs_start; }; then
    echo failed >"$world/state"
    nfs_stop
    exit 1
fi
echo ready >"$world/state"
mkfifo /run/acme-never
exec 9<>/run/acme-never
while [ ! -e "$world/stop" ]; do
    read -r -t 0.2 -u 9
done
finish
