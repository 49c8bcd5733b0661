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
# devstack/plugin.sh - called by stack.sh, unstack.sh and clean.sh with a mode
# and a phase.

# shellcheck shell=bash
# The settings come from devstack and from devstack/settings.
# shellcheck disable=SC2154

# The functions are in devstack/lib/acme, which devstack/settings sources.

case "$1 $2" in
    "stack pre-install")
        check_acme_settings
        echo_summary "Installing packages for the acme back ends"
        install_acme_packages
        ;;
    "stack install")
        echo_summary "Installing acme_cinder"
        install_acme
        ;;
    "stack post-config")
        # Cinder is configured and not yet started.
        if is_service_enabled acme-appliance; then
            echo_summary "Starting the acme appliance"
            init_acme_appliance
            start_acme_appliance
        fi
        if is_acme_volume_enabled; then
            echo_summary "Creating tokens for the acme back ends"
            authorize_acme_backends
        fi
        ;;
    "stack extra")
        create_acme_volume_types
        ;;
    "stack test-config")
        # After lib/tempest wrote tempest.conf.
        if is_service_enabled tempest; then
            echo_summary "Configuring Tempest for the acme back ends"
            configure_acme_tempest
        fi
        ;;
    "unstack "*)
        # Before cleanup_nova, on every node with Nova's mounts.
        unmount_acme_volumes "$NOVA_STATE_PATH/mnt"
        # With cinder-volume here, cleanup_cinder_backend_acme does this when
        # it and nova-compute have stopped.
        if ! is_acme_volume_enabled; then
            stop_acme_appliance
        fi
        ;;
    "clean "*)
        # Before clean.sh removes DATA_DIR; unstack.sh may have failed.
        unmount_acme_volumes "$NOVA_STATE_PATH/mnt" "$CINDER_STATE_PATH"
        cleanup_acme
        ;;
esac
