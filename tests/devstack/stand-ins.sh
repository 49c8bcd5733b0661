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
# Sourced by devstack.sh: what stands in for the parts of devstack that would
# change the machine. All else is devstack's own.

# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154,SC2317

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# systemd: a stand-in that reads the very unit files that devstack writes.
SYSTEMD_DIR=$scratch/systemd
export SYSTEMD_DIR
SYSTEMCTL="python3 $here/systemctl.py"

# The commands that pip_install would have made.
PATH=$scratch/bin:$PATH

# A machine's name, which needs name service in some of its forms.
function hostname {
    echo localhost
}

function record {
    echo "$*" >>"$scratch/calls"
}

# curl - stack.sh runs as a user who may not read root's files
function curl {
    setpriv --reuid nobody --regid nogroup --clear-groups curl "$@"
}

# sudo - runs the command as it is, but only on files in the scratch tree
function sudo {
    local xtrace
    xtrace=$(set +o | grep xtrace)
    set +o xtrace
    record sudo "$@"
    if [[ "$1" != modprobe ]]; then
        check_paths "$@"
        $xtrace
        "$@"
    else
        $xtrace
    fi
}

function check_paths {
    local word path
    # Other words are options, or sed's own language.
    local file='^(-*[a-z-]+=)?(/[A-Za-z0-9_.@/*-]*)$'
    for word in "$@"; do
        [[ "$word" =~ $file ]] || continue
        path=${BASH_REMATCH[2]}
        # What clients see as / is no file that the appliance changes.
        if [[ "$path" == / && "$1" == "$scratch"/bin/acme-appliance ]]; then
            continue
        fi
        if [[ -n "$SANDBOX_KIND" && "$path" == /etc/exports.d/acme-* ]]; then
            continue
        fi
        if [[ "$path" != "$scratch"/* ]]; then
            die $LINENO "sudo $*: $path is not in the scratch tree"
        fi
    done
}

# Called before devstack's libraries are read and again after.
function stand_in {
    # Packages.
    function install_package {
        record install_package "$@"
    }
    function pip_install {
        record pip_install "$@"
    }
    function get_python_exec_prefix {
        echo "$scratch/bin"
    }

    # Nova itself: of its clean-up, what can destroy data.
    function cleanup_nova {
        sudo rm -rf "$NOVA_STATE_PATH"
    }

    # Tempest itself: its configuration is devstack's own.
    function install_tempest {
        mkdir -p "$TEMPEST_DIR"
        printf '[metadata]\nname = tempest\n' >"$TEMPEST_DIR/setup.cfg"
    }
    function set_tempest_venv_constraints {
        record set_tempest_venv_constraints "$@"
    }
    function tox {
        record tox "$@"
    }
    function start_service {
        record start_service "$@"
    }

    # What asks Keystone or Cinder's API; volume types are lines in a file.
    function openstack {
        record openstack "$@"
        case "$*" in
            *" volume type show "*)
                grep -qxF "${!#}" "$scratch/types"
                ;;
            *" volume type create "*)
                echo "${!#}" >>"$scratch/types"
                ;;
        esac
    }
    function get_or_create_project {
        echo project-id
    }
    function get_or_create_user {
        echo user-id
    }

    # The machine's own files.
    function configure_rootwrap {
        record configure_rootwrap "$@"
    }
    function write_uwsgi_config {
        record write_uwsgi_config "$@"
    }
    function remove_uwsgi_config {
        record remove_uwsgi_config "$@"
    }

    # Volumes of other kinds need LVM and iSCSI on the machine.
    function configure_cinder_backend_lvm {
        iniset "$CINDER_CONF" "$1" volume_driver \
            cinder.volume.drivers.lvm.LVMVolumeDriver
        iniset "$CINDER_CONF" "$1" volume_backend_name "$1"
    }
    function init_cinder_backend_lvm {
        record init_cinder_backend_lvm "$@"
    }
    function cleanup_cinder_backend_lvm {
        record cleanup_cinder_backend_lvm "$@"
    }

    # A database and a queue without servers.
    function database_connection_url {
        echo "sqlite:///$DATA_DIR/$1.sqlite"
    }
    function recreate_database {
        rm -f "$DATA_DIR/$1.sqlite"
    }
    function iniset_rpc_backend {
        iniset "$2" DEFAULT transport_url fake:/
    }
}

function stand_in_for_paths {
    CINDER_DIR=$scratch/cinder
    CINDER_BIN_DIR=$scratch/bin
    CINDER_CONF_DIR=$scratch/etc/cinder
    CINDER_CONF=$CINDER_CONF_DIR/cinder.conf
    CINDER_API_PASTE_INI=$CINDER_CONF_DIR/api-paste.ini
    CINDER_UWSGI_CONF=$CINDER_CONF_DIR/cinder-api-uwsgi.ini
    # edit-constraints, from the requirements that stack.sh has checked out.
    mkdir -p "$REQUIREMENTS_DIR/.venv/bin"
    ln -sf /bin/true "$REQUIREMENTS_DIR/.venv/bin/edit-constraints"
}
