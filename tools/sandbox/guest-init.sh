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
# First process of the user-mode-linux guest. The host's root is mounted
# read-only as / (hostfs); this builds the real root and runs guest.sh.
# acme_sandbox=DIR comes from the kernel command line.
set -eu
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH HOME=/root LANG=C.UTF-8
here=${0%/*}
# shellcheck disable=SC2154 # from the kernel's command line
sandbox=$acme_sandbox
trap 'echo "acme: guest init failed in line $LINENO" >&2; poweroff -d -f' ERR

mount -t proc proc /proc
mount -t sysfs sysfs /sys
modules=/usr/lib/uml/modules/$(uname -r)
insmod "$modules/kernel/fs/overlayfs/overlay.ko"

# The guest's writes stay in memory, in an overlay above the host's files.
stage=/mnt
mount -t tmpfs -o mode=755 tmpfs $stage
mkdir $stage/upper $stage/work $stage/lower $stage/root
mount -t overlay -o "lowerdir=/,upperdir=$stage/upper,workdir=$stage/work" \
    overlay $stage/lower

# The root itself is a tmpfs with bind mounts of the overlay's folders: nfsd
# cannot export overlay or hostfs, and the NFSv4 pseudo root is /.
new=$stage/root
mount -t tmpfs -o mode=755 tmpfs $new
shopt -s dotglob
for entry in "$stage"/lower/*; do
    name=${entry##*/}
    case $name in
        proc | sys | dev | run | mnt | lost+found) mkdir "$new/$name" ;;
        *)
            if [ -L "$entry" ]; then
                cp -a "$entry" "$new/$name"
            elif [ -d "$entry" ]; then
                mkdir "$new/$name"
                mount --bind "$entry" "$new/$name"
            fi
            ;;
    esac
done
mkdir -p $new/mnt $new/run "$new/lib/modules"
mount -t proc proc $new/proc
mount -t sysfs sysfs $new/sys
mount -t devtmpfs devtmpfs $new/dev
mkdir -p $new/dev/pts $new/dev/shm
mount -t devpts -o ptmxmode=666,mode=620 devpts $new/dev/pts
ln -sfn fd/0 $new/dev/stdin
ln -sfn fd/1 $new/dev/stdout
ln -sfn fd/2 $new/dev/stderr
ln -sfn /proc/self/fd $new/dev/fd
mount -t tmpfs -o mode=1777 tmpfs $new/dev/shm
ln -sfn "$modules" "$new/lib/modules/$(uname -r)"

cd $new
mount -n --move . /
exec chroot . "$here/guest.sh" "$sandbox"
