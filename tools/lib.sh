#!/usr/bin/env bash
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
# Functions of the other tools: progress lines, system packages, Python
# environments. Source it; works from any folder.

ACME_TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Environments and logs. git ignores it; deleting it is safe.
ACME_WORK=${ACME_WORK:-$ACME_TOP/.work}
export ACME_TOP ACME_WORK

say() {
    printf '==> %s\n' "$*" >&2
}

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        command -v sudo >/dev/null ||
            fail "root is needed for '$1', and there is no sudo"
        sudo "$@"
    fi
}

# with_progress TEXT LOG CMD...: runs CMD with its output in LOG, and prints
# progress every ten seconds. If CMD fails, prints the end of LOG and exits.
with_progress() {
    local text=$1 log=$2 pid began=$SECONDS told=0 now
    shift 2
    mkdir -p "$(dirname "$log")"
    say "$text"
    "$@" >"$log" 2>&1 </dev/null &
    pid=$!
    while kill -0 "$pid" 2>/dev/null; do
        sleep 0.2
        now=$(((SECONDS - began) / 10))
        if [ "$now" -gt "$told" ]; then
            told=$now
            printf '    %3d s  %s\n' $((SECONDS - began)) \
                "$(tail -n 1 "$log" | cut -c 1-60)" >&2
        fi
    done
    wait "$pid" && return 0
    tail -n 20 "$log" >&2
    fail "$text: failed; its output is in $log"
}

# Prints the packages of bindep.txt for these profiles, and those without a
# profile.
packages_for() {
    local line name selector profile
    while read -r line; do
        case "$line" in '' | '#'*) continue ;; esac
        name=${line%% *}
        selector=${line#*platform:dpkg}
        selector=${selector%%]*}
        [ -n "${selector// /}" ] || echo "$name"
        for profile in "$@"; do
            case " $selector " in *" $profile "*) echo "$name" ;; esac
        done
    done <"$ACME_TOP/bindep.txt" | sort -u
}

is_installed() {
    dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed
}

# ensure_packages PROFILE...: installs missing packages.
ensure_packages() {
    local name missing=()
    command -v dpkg-query >/dev/null ||
        fail "this machine has no dpkg; install the packages of bindep.txt" \
            "($*) manually, then run this again with ACME_SKIP_PACKAGES=1"
    for name in $(packages_for "$@"); do
        is_installed "$name" || missing+=("$name")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    [ -z "${ACME_SKIP_PACKAGES:-}" ] ||
        fail "not installed: ${missing[*]}"
    if [ "$(id -u)" != 0 ]; then
        # Ask for the password now, not in the background.
        as_root true
    fi
    with_progress "installing system packages: ${missing[*]}" \
        "$ACME_WORK/apt.log" apt_install "${missing[@]}"
}

# Prevents services from starting: the host's own NFS server is not needed.
apt_install() {
    local policy=/usr/sbin/policy-rc.d made='' code=0
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
        made=yes
    fi
    as_root apt-get -o DPkg::Lock::Timeout=300 -q update &&
        as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l apt-get \
            -o DPkg::Lock::Timeout=300 -q -y --no-install-recommends \
            install "$@" || code=$?
    [ -z "$made" ] || as_root rm -f "$policy"
    return $code
}

# ensure_sandbox [--sandbox]: installs the requirements of tools/sandbox.sh.
ensure_sandbox() {
    "$ACME_TOP/tools/sandbox.sh" "$@" check >/dev/null 2>&1 ||
        install_sandbox "$@"
    ! needs_mappings "$@" || ensure_mappings
}

# If there is no user-mode Linux (for example on another CPU), tries to install
# more modules for the running kernel.
install_sandbox() {
    local modules
    if apt-cache show user-mode-linux >/dev/null 2>&1; then
        ensure_packages sandbox
    else
        modules=linux-modules-extra-$(uname -r)
        if apt-cache show "$modules" >/dev/null 2>&1; then
            with_progress "installing more kernel modules: $modules" \
                "$ACME_WORK/apt-modules.log" apt_install "$modules"
        fi
    fi
    "$ACME_TOP/tools/sandbox.sh" "$@" check >/dev/null ||
        fail "neither this kernel nor a sandbox can serve NFS here"
}

# From 6.12 on, a user-mode kernel uses a mapping of the host for almost every
# page of a process, and kills the process at the host's limit. Debian's is
# 65530, which is 256 MiB. The new value is the default of Fedora and Ubuntu.
ensure_mappings() {
    local now wanted=1048576
    now=$(sysctl -n vm.max_map_count) || return
    [ "$now" -lt "$wanted" ] || return 0
    say "setting vm.max_map_count from $now to $wanted, until the next boot"
    as_root sysctl -q -w "vm.max_map_count=$wanted" ||
        say "not possible: large processes in the sandbox may be killed"
}

# needs_mappings [--sandbox]: whether a user-mode kernel of that kind is used.
needs_mappings() {
    local release
    [ "$("$ACME_TOP/tools/sandbox.sh" "$@" check 2>/dev/null)" = guest ] &&
        release=$(linux.uml --version 2>/dev/null) &&
        [ "$(printf '%s\n' 6.12 "$release" | sort -V | head -n 1)" = 6.12 ]
}

# Prints a Python that Cinder 29 supports: 3.11, 3.12 or 3.13.
find_python() {
    local name
    for name in ${ACME_PYTHON:-python3 python3.13 python3.12 python3.11}; do
        "$name" -c 'import sys, venv, ensurepip
sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
            >/dev/null 2>&1 && command -v "$name" && return 0
    done
    fail "no Python 3.11, 3.12 or 3.13 with venv was found; install" \
        "python3-venv, or set ACME_PYTHON"
}

# ensure_venv FOLDER FILE... -- PIP-ARGUMENT...: creates an environment, again
# if the arguments or the files have changed. An incomplete one is never used:
# the stamp is written last.
ensure_venv() {
    local folder=$1 files=() stamp python
    shift
    while [ "$1" != -- ]; do
        files+=("$1")
        shift
    done
    shift
    python=$(find_python)
    stamp=$({
        echo "$python" "$@"
        cat "${files[@]}"
    } | sha256sum)
    [ "$(cat "$folder/stamp" 2>/dev/null)" != "$stamp" ] || return 0
    rm -rf "$folder"
    with_progress \
        "creating the Python environment ${folder#"$ACME_TOP"/} (1-3 minutes)" \
        "$folder.log" make_venv "$python" "$folder" "$@"
    echo "$stamp" >"$folder/stamp"
}

make_venv() {
    local python=$1 folder=$2
    shift 2
    # Without a readable git history there is no version.
    git -C "$ACME_TOP" rev-parse HEAD >/dev/null 2>&1 ||
        export PBR_VERSION=${PBR_VERSION:-0.0.1}
    export SKIP_GENERATE_AUTHORS=1 SKIP_WRITE_GIT_CHANGELOG=1
    # Outdated metadata: python -m would prefer its entry points to the
    # installed ones.
    rm -rf "$ACME_TOP/acme_cinder.egg-info"
    "$python" -m venv "$folder" &&
        "$folder/bin/pip" install --disable-pip-version-check --no-input \
            --progress-bar off "$@"
}

# precompile PYTHON: this tree is read-only in the sandbox, where every process
# would compile it again.
precompile() {
    (cd "$ACME_TOP" && "$1" -m compileall -q acme_client acme_cinder \
        acme_appliance tools tests) >/dev/null 2>&1
}

# ensure_demo [--sandbox]: installs the requirements of the demonstration and
# the benchmarks. Sets DEMO_PYTHON.
ensure_demo() {
    # Cached byte code makes later starts of Python programs fast.
    unset PYTHONDONTWRITEBYTECODE
    ensure_packages appliance test
    ensure_sandbox "$@"
    ensure_venv "$ACME_WORK/venv/demo" constraints.txt requirements.txt \
        pyproject.toml -- -c constraints.txt cinder python-cinderclient \
        -e '.[appliance]'
    # shellcheck disable=SC2034 # for scripts that source this
    DEMO_PYTHON=$ACME_WORK/venv/demo/bin/python
    precompile "$ACME_WORK/venv/demo/bin/python" || :
}
