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
# Every test there is, lint, types and docs, from nothing. See --help.
set -uo pipefail
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

HOST_STAGES=(lint unit compliance-27 compliance-28 compliance-29 docs
    releasenotes packaging)
NFS_STAGES=(functional e2e devstack)
RESULTS=$ACME_WORK/test

usage() {
    cat <<'TEXT'
usage: tools/test.sh [--sandbox] [STAGE...]

Installs what the tests need, runs them, and ends with one line
"N passed, N failed, N skipped"; exit code 0 if nothing failed.

  --sandbox   use the sandbox even where the running kernel has NFS

Stages (default: all; the two lines run side by side):
  lint unit compliance-27 compliance-28 compliance-29 docs releasenotes
  packaging
  functional e2e devstack     these need NFS: root, and the sandbox where
                              the running kernel has none

devstack wants DEVSTACK_DIR to name a checkout of devstack, and skips
otherwise; with it, nothing may be skipped. It needs root outside the sandbox,
too. Logs are in .work/test/STAGE.log; .work can be deleted any time.
TEXT
}

# The Python environment of a stage: one serves all that needs Cinder 29,
# since making one takes a minute. Older Cinders bring other versions of
# everything else.
environment() {
    case "$1" in
    compliance-29) echo "$ACME_WORK/venv/test" ;;
    compliance-*) echo "$ACME_WORK/venv/$1" ;;
    *) echo "$ACME_WORK/venv/test" ;;
    esac
}

make_environment() {
    case "$1" in
    compliance-29) ;;
    compliance-*)
        ensure_venv "$(environment "$1")" requirements.txt -- \
            "cinder==${1#compliance-}.0.0" -r requirements.txt \
            ddt oslotest stestr falcon==4.0.2
        ;;
    esac
}

# stestr_run FOLDER [OPTION...]: with a repository of its own, since two
# stages run at a time.
stestr_run() {
    local folder=$1 results
    shift
    results=$ACME_WORK/stestr-${folder##*/}-$$
    mkdir -p "$results"
    stestr --repo-url "$results" init &&
        stestr --test-path "$folder" --repo-url "$results" run "$@"
    local code=$?
    rm -rf "$results"
    return $code
}

# What runs in a stage, with the environment's commands on PATH; tox.ini has
# the same for one at a time.
stage_command() {
    case "$1" in
    lint) pre-commit run --all-files --show-diff-on-failure ;;
    # As Cinder runs from its next release on; one test has eventlet.
    unit)
        export OS_CINDER_DISABLE_EVENTLET_PATCHING=1
        stestr_run ./tests/unit
        ;;
    # The oldest constraints that devstack has the appliance with pin an
    # older falcon than ours.
    compliance-27)
        python -c 'import acme_appliance.api.app' &&
            stestr_run ./tests/compliance
        ;;
    compliance-*) stestr_run ./tests/compliance ;;
    docs)
        sphinx-build -q -W --keep-going -b html doc/source doc/build/html
        ;;
    releasenotes)
        sphinx-build -q -a -E -W -d releasenotes/build/doctrees -b html \
            releasenotes/source releasenotes/build/html
        ;;
    packaging) stestr_run ./tests/packaging --serial ;;
    devstack) devstack_tests ;;
    functional | e2e)
        tools/sandbox.sh run -- "${BASH_SOURCE[0]}" --in-sandbox "$1"
        ;;
    esac
}

# In the sandbox only what exports: devstack starts processes by the
# thousand, which takes ten times as long there.
devstack_tests() {
    if [ -z "${DEVSTACK_DIR:-}" ]; then
        stestr_run ./tests/devstack --serial
        return
    fi
    as_root modprobe --quiet --all loop btrfs
    as_root env "PATH=$PATH:/usr/sbin:/sbin" "ACME_WORK=$ACME_WORK" \
        "DEVSTACK_DIR=$DEVSTACK_DIR" PYTHONDONTWRITEBYTECODE=1 \
        "${BASH_SOURCE[0]}" --in-sandbox devstack --exclude-regex test_attach &&
        tools/sandbox.sh run -- \
            "${BASH_SOURCE[0]}" --in-sandbox devstack test_attach
}

run_stage() {
    local stage=$1 log=$RESULTS/$1.log code=0
    (
        make_environment "$stage"
        PATH=$(environment "$stage")/bin:$PATH
        stage_command "$stage"
    ) >"$log" 2>&1 </dev/null || code=$?
    report "$stage" "$code" >"$RESULTS/$stage.result"
    print_stage "$stage"
    [ "$code" = 0 ] || { echo "--- the end of $log"; tail -n 80 "$log"; }
}

# sum PATTERN FILE: all the numbers that follow PATTERN at the start of a
# line.
sum() {
    sed -n "s/^$1\([0-9][0-9]*\)\$/\1/p" "$2" |
        awk '{ n += $1 } END { print n + 0 }'
}

# "passed failed skipped seconds" of one stage: stestr's and pre-commit's own
# figures; what counts nothing itself (docs) is one check.
report() {
    local log=$RESULTS/$1.log passed failed skipped
    passed=$(($(sum ' - Passed: ' "$log") + \
        $(grep -c '\.\.\.Passed$' "$log")))
    failed=$(($(sum ' - Failed: ' "$log") + \
        $(sum ' - Unexpected Success: ' "$log") + \
        $(grep -c '\.\.\.Failed$' "$log")))
    skipped=$(sum ' - Skipped: ' "$log")
    # Who names a devstack wants the plugin tested.
    if [ "$1" = devstack ] && [ -n "${DEVSTACK_DIR:-}" ]; then
        failed=$((failed + skipped)) skipped=0
    fi
    case "$1" in
    docs | releasenotes) [ "$2" != 0 ] || passed=1 ;;
    esac
    # Neither a crash of the runner nor a run of no test is a success.
    if [ "$2" != 0 ] && [ "$failed" = 0 ]; then
        failed=1
    elif [ $((passed + failed + skipped)) = 0 ]; then
        failed=1
    fi
    echo "$passed $failed $skipped $((SECONDS - STAGE_START))"
}

print_stage() {
    local passed failed skipped seconds
    read -r passed failed skipped seconds <"$RESULTS/$1.result"
    printf '%-15s %6s passed %4s failed %4s skipped %6s s\n' \
        "$1" "$passed" "$failed" "$skipped" "$seconds"
}

is_one_of() {
    local wanted=$1 word
    shift
    for word in "$@"; do
        [ "$word" != "$wanted" ] || return 0
    done
    return 1
}

# One after another, those of the stages named that were chosen.
run_lane() {
    local stage
    for stage in "$@"; do
        is_one_of "$stage" "${CHOSEN[@]}" || continue
        STAGE_START=$SECONDS
        say "$stage ..."
        run_stage "$stage"
    done
}

add_up() {
    local stage numbers total=(0 0 0)
    for stage in "${CHOSEN[@]}"; do
        print_stage "$stage"
        read -r -a numbers <"$RESULTS/$stage.result"
        total[0]=$((total[0] + numbers[0]))
        total[1]=$((total[1] + numbers[1]))
        total[2]=$((total[2] + numbers[2]))
    done
    echo "${total[0]} passed, ${total[1]} failed, ${total[2]} skipped"
    [ "${total[1]}" = 0 ]
}

prepare() {
    # Byte code is what makes the second start of a Python program fast.
    unset PYTHONDONTWRITEBYTECODE
    ensure_packages appliance test sandbox
    ensure_venv "$ACME_WORK/venv/test" constraints.txt pyproject.toml \
        requirements.txt test-requirements.txt doc/requirements.txt -- \
        -c constraints.txt -r requirements.txt -r test-requirements.txt \
        -r doc/requirements.txt -e '.[appliance]'
    rm -rf "$RESULTS" && mkdir -p "$RESULTS"
}

parse() {
    CHOSEN=()
    while [ $# -gt 0 ]; do
        case "$1" in
        --help | -h) usage && exit 0 ;;
        --sandbox) export ACME_SANDBOX=1 ;;
        -*) usage >&2 && exit 2 ;;
        *)
            is_one_of "$1" "${HOST_STAGES[@]}" "${NFS_STAGES[@]}" ||
                fail "no stage named '$1'; see --help"
            CHOSEN+=("$1")
            ;;
        esac
        shift
    done
    [ ${#CHOSEN[@]} -gt 0 ] || CHOSEN=("${HOST_STAGES[@]}" "${NFS_STAGES[@]}")
}

main() {
    # How this script calls itself where there is an NFS server, or root.
    if [ "${1:-}" = --in-sandbox ]; then
        cd "$ACME_TOP" && stestr_run "./tests/$2" --serial "${@:3}"
        exit
    fi
    parse "$@"
    cd "$ACME_TOP" || exit 1
    prepare
    run_lane "${NFS_STAGES[@]}" &
    run_lane "${HOST_STAGES[@]}"
    wait $!
    echo
    add_up
}

main "$@"
