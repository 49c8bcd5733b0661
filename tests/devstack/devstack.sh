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
# devstack.sh SCRATCH stack|unstack|clean [LAST]: does to SCRATCH what the
# script of that name in devstack does to a machine, with devstack's own
# functions and in its order, as far as Cinder and plugins are concerned.
# LAST names the phase after which to stop (configure: before the plugin's
# install phase).
#
# SCRATCH/devstack is a copy of devstack with a local.conf. Stood in for:
# what installs packages, systemd, the database server, the message queue,
# Keystone and sudoers. Each is recorded in SCRATCH/calls.

scratch=$1
mode=$2
last=${3:-}
TOP_DIR=$scratch/devstack
cd "$TOP_DIR" || exit 1
# What unstack.sh and clean.sh take from openrc, stack.sh finds itself.
export HOST_IP=127.0.0.1

# shellcheck disable=SC2034
FILES=$TOP_DIR/files
# shellcheck source=/dev/null
source "$TOP_DIR/functions"
GetDistro
rm -f "$TOP_DIR/.localrc.auto"
extract_localrc_section "$TOP_DIR/local.conf" "$TOP_DIR/localrc" \
    "$TOP_DIR/.localrc.auto"
# shellcheck source=/dev/null
source "$TOP_DIR/stackrc"

# shellcheck source=tests/devstack/stand-ins.sh
source "$(dirname "$0")/stand-ins.sh"
stand_in
exec 3>&1 6>&1
set -o errexit

mkdir -p "$DEST" "$DATA_DIR"
# shellcheck source=/dev/null
source "$TOP_DIR/lib/database"
# shellcheck source=/dev/null
source "$TOP_DIR/lib/rpc_backend"
if [[ $mode == stack ]]; then
    async_init
    fetch_plugins
fi
run_phase override_defaults
for library in apache tls infra libraries lvm horizon keystone glance nova \
        placement cinder swift neutron; do
    # shellcheck source=/dev/null
    source "$TOP_DIR/lib/$library"
done
stand_in
stand_in_for_paths

# phase NAME COMMAND...: the command; the end, where LAST is NAME
function phase {
    local name=$1
    shift
    echo "== $name"
    "$@"
    if [[ "$name" == "$last" ]]; then
        exit 0
    fi
}

function stack_it {
    # As stack.sh does: whatever is not meant for a log has to see to it.
    set -o xtrace
    phase source run_phase source
    # Tempest's functions have come in with it.
    stand_in
    # shellcheck disable=SC2046
    install_package $(get_plugin_packages)
    phase pre-install run_phase stack pre-install
    phase configure configure_cinder
    phase install run_phase stack install
    phase init init_cinder
    phase post-config run_phase stack post-config
    merge_config_group "$TOP_DIR/local.conf" post-config
    phase extra run_phase stack extra
    phase test-config run_phase stack test-config
    merge_config_group "$TOP_DIR/local.conf" test-config
}

function unstack_it {
    load_plugin_settings
    phase unstack run_phase unstack
    if is_service_enabled nova; then
        cleanup_nova
    fi
    stop_cinder || /bin/true
    cleanup_cinder || /bin/true
}

case "$mode" in
    stack) stack_it ;;
    unstack) unstack_it ;;
    clean)
        # clean.sh starts unstack.sh, as a process of its own, and goes on
        # whatever came of it.
        "$0" "$scratch" unstack || /bin/true
        load_plugin_settings
        phase clean run_phase clean
        cleanup_cinder || /bin/true
        cleanup_nova
        # In the real one all of DATA_DIR, which would hide what the plugin
        # itself leaves there.
        sudo rm -rf "$CINDER_STATE_PATH"
        ;;
esac
