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
# native-init.sh DIR: first process of a native sandbox, in its own mount,
# network and process namespaces. It cannot change the host's mounts or exports;
# private files hide /etc/exports and similar ones.
set -u
sandbox=$1
here=${0%/*}
# shellcheck source=/dev/null
. "$sandbox/settings"
exec >>"$sandbox/sandbox.log" 2>&1 </dev/null
mount -t proc proc /proc
ip link set lo up

# shellcheck source=tools/sandbox/nfs.sh
. "$here/nfs.sh"
# Makes changes in /etc private, if the kernel has overlayfs.
private_etc() {
    modprobe overlay 2>/dev/null
    mkdir -p /run/etc/upper /run/etc/work
    mount -t overlay -o \
        lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work \
        overlay /etc || echo "no overlayfs: /etc is the host's"
}
scratch_folder() {
    mkdir -p "$sandbox/scratch/tmp" "$SANDBOX_SCRATCH" &&
        mount --bind "$sandbox/scratch" "$SANDBOX_SCRATCH" &&
        chmod 1777 "$SANDBOX_SCRATCH/tmp"
}
finish() {
    trap - TERM
    nfs_stop
    echo stopped >"$sandbox/state"
    exit 0
}
trap finish TERM
if ! { nfs_private_run && private_etc && nfs_private_files &&
    scratch_folder && nfs_start; }; then
    echo failed >"$sandbox/state"
    nfs_stop
    exit 1
fi
echo ready >"$sandbox/state"
mkfifo /run/acme-never
exec 9<>/run/acme-never
while [ ! -e "$sandbox/stop" ]; do
    read -r -t 0.2 -u 9
done
finish
