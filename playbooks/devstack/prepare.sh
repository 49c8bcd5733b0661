#!/bin/bash
# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.
#
# prepare.sh DEVSTACK: makes a fresh machine ready for stack.sh, as any user
# with sudo: devstack's user, its checkout and this one under /opt/stack, and
# a local.conf from the all-in-one sample.
set -euo pipefail

devstack=$(cd "$1" && pwd)
here=$(cd "$(dirname "$0")/../.." && pwd)

sudo "$devstack/tools/create-stack-user.sh"
sudo cp -r "$devstack" /opt/stack/devstack
sudo cp -r "$here" /opt/stack/acme-cinder

{
    cat "$here/devstack/samples/all-in-one.conf"
    cat <<'CONF'
LOGFILE=/opt/stack/logs/stack.sh.log
GIT_DEPTH=1
disable_service dstat horizon
CONF
} | sudo tee /opt/stack/devstack/local.conf

sudo chown -R stack:stack /opt/stack
sudo chmod 0755 /opt/stack
