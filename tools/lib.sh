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
# What the other tools share: progress lines, system packages, Python
# environments. To be sourced; works from any folder.

ACME_TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Environments and logs; git ignores it, and deleting it is always safe.
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

# with_progress TEXT LOG CMD...: runs CMD with its output in LOG and a sign of
# life every ten seconds. Ends the script, showing the end of LOG, when CMD
# fails.
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

# The packages that bindep.txt lists for these profiles, beside those
# without a profile.
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

# ensure_packages PROFILE...: installs what is missing, and only that.
ensure_packages() {
    local name missing=()
    command -v dpkg-query >/dev/null ||
        fail "this machine has no dpkg; install what bindep.txt lists" \
            "($*) by hand, then run this again with ACME_SKIP_PACKAGES=1"
    for name in $(packages_for "$@"); do
        is_installed "$name" || missing+=("$name")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    [ -z "${ACME_SKIP_PACKAGES:-}" ] ||
        fail "not installed: ${missing[*]}"
    if [ "$(id -u)" != 0 ]; then
        # Asks for the password now, if at all: not in the background.
        as_root true
    fi
    with_progress "installing system packages: ${missing[*]}" \
        "$ACME_WORK/apt.log" apt_install "${missing[@]}"
}

# Services must not start by themselves: an NFS server of the host's own is
# neither needed nor wanted.
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

# ensure_sandbox [--sandbox]: what tools/sandbox.sh needs on this machine. Where
# no kernel can be had that runs as a process (on another CPU, say), the own
# one may have more modules to offer.
ensure_sandbox() {
    local modules
    "$ACME_TOP/tools/sandbox.sh" "$@" check >/dev/null 2>&1 && return
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

# A Python that Cinder 29 runs on: 3.11, 3.12 or 3.13.
find_python() {
    local name
    for name in ${ACME_PYTHON:-python3 python3.13 python3.12 python3.11}; do
        "$name" -c 'import sys, venv, ensurepip
sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
            >/dev/null 2>&1 && command -v "$name" && return 0
    done
    fail "no Python 3.11, 3.12 or 3.13 with venv was found; install" \
        "python3-venv, or name one in ACME_PYTHON"
}

# ensure_venv FOLDER FILE... -- PIP-ARGUMENT...: an environment with what the
# arguments name, made anew when they, or one of the files, have changed. A
# half-made one is never used: the stamp is written last.
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
        "making the Python environment ${folder#"$ACME_TOP"/} (1-3 minutes)" \
        "$folder.log" make_venv "$python" "$folder" "$@"
    echo "$stamp" >"$folder/stamp"
}

make_venv() {
    local python=$1 folder=$2
    shift 2
    # Without a history that git is willing to read there is no version.
    git -C "$ACME_TOP" rev-parse HEAD >/dev/null 2>&1 ||
        export PBR_VERSION=${PBR_VERSION:-0.0.1}
    export SKIP_GENERATE_AUTHORS=1 SKIP_WRITE_GIT_CHANGELOG=1
    # Of an earlier state of the checkout: python -m reads its entry points
    # before those that are installed.
    rm -rf "$ACME_TOP/acme_cinder.egg-info"
    "$python" -m venv "$folder" &&
        "$folder/bin/pip" install --disable-pip-version-check --no-input \
            --progress-bar off "$@"
}

# precompile PYTHON: the sandbox sees this tree read-only, and would compile
# it again for every process.
precompile() {
    (cd "$ACME_TOP" && "$1" -m compileall -q acme_client acme_cinder \
        acme_appliance tools tests) >/dev/null 2>&1
}

# ensure_demo [--sandbox]: all that the demonstration and the measurement
# need. Sets DEMO_PYTHON.
ensure_demo() {
    # Byte code is what makes the second start of a Python program fast.
    unset PYTHONDONTWRITEBYTECODE
    ensure_packages appliance test
    ensure_sandbox "$@"
    ensure_venv "$ACME_WORK/venv/demo" constraints.txt requirements.txt \
        pyproject.toml -- -c constraints.txt cinder python-cinderclient \
        -e '.[appliance]'
    # shellcheck disable=SC2034 # for whoever sources this
    DEMO_PYTHON=$ACME_WORK/venv/demo/bin/python
    precompile "$ACME_WORK/venv/demo/bin/python" || :
}
