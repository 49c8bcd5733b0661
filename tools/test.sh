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
# Runs all tests, lint, type checks and docs, from scratch. See --help.
set -uo pipefail
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Two groups that run concurrently and take about the same time. A sandbox has
# one CPU. Only unit uses two, so it is last.
FIRST_STAGES=(lint e2e unit)
SECOND_STAGES=(functional devstack packaging compliance-27 compliance-28
    compliance-29 docs releasenotes)
RESULTS=$ACME_WORK/test

usage() {
    cat <<'TEXT'
usage: tools/test.sh [--sandbox] [STAGE...]

Installs the tests' requirements, runs them, and ends with the line
"N passed, N failed, N skipped"; exit code 0 if nothing failed.

  --sandbox   use the sandbox even if the running kernel has NFS

Stages (default: all, in two concurrent groups):
  lint unit compliance-27 compliance-28 compliance-29 docs releasenotes
  packaging
  functional e2e devstack     need NFS: root, or the sandbox if the running
                              kernel has none

devstack needs a checkout of devstack in DEVSTACK_DIR, otherwise its tests are
skipped; if it is set, skipped tests are failures. It also needs root outside
of the sandbox. Logs are in .work/test/STAGE.log; .work can be deleted anytime.
TEXT
}

# The Python environment of a stage. All stages with Cinder 29 share one,
# because creating one takes a minute. Older Cinders need other versions of
# their requirements.
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

# stestr_run FOLDER [OPTION...]: with its own repository, because two stages
# run concurrently.
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

# Runs a stage, with the environment's commands on PATH. tox.ini has the same
# commands.
stage_command() {
    case "$1" in
    lint) pre-commit run --all-files --show-diff-on-failure ;;
    # The default of Cinder's next release; one test uses eventlet.
    unit)
        export OS_CINDER_DISABLE_EVENTLET_PATCHING=1
        stestr_run ./tests/unit
        ;;
    # The constraints of the oldest supported devstack have an older falcon.
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
        tools/sandbox.sh run --life 5000 -- "${BASH_SOURCE[0]}" \
            --in-sandbox "$1"
        ;;
    esac
}

# Runs only the tests with exports in the sandbox: devstack starts thousands of
# processes, which is ten times slower there.
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

# sum PATTERN FILE: the sum of the numbers after PATTERN at the start of a line.
sum() {
    sed -n "s/^$1\([0-9][0-9]*\)\$/\1/p" "$2" |
        awk '{ n += $1 } END { print n + 0 }'
}

# Prints "passed failed skipped seconds" of a stage: figures of stestr and
# pre-commit; stages without figures (docs) count as one check.
report() {
    local log=$RESULTS/$1.log passed failed skipped
    passed=$(($(sum ' - Passed: ' "$log") + \
        $(grep -c '\.\.\.Passed$' "$log")))
    failed=$(($(sum ' - Failed: ' "$log") + \
        $(sum ' - Unexpected Success: ' "$log") + \
        $(grep -c '\.\.\.Failed$' "$log")))
    skipped=$(sum ' - Skipped: ' "$log")
    # With a devstack, nothing may be skipped.
    if [ "$1" = devstack ] && [ -n "${DEVSTACK_DIR:-}" ]; then
        failed=$((failed + skipped)) skipped=0
    fi
    case "$1" in
    docs | releasenotes) [ "$2" != 0 ] || passed=1 ;;
    esac
    # A crash of the runner, or a run without tests, is a failure.
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

# Runs the chosen ones of these stages in order.
run_group() {
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

# Creates the environments of older Cinders, if their stages were chosen. If
# one fails, its stage tries again, and reports it.
make_environments() {
    local stage
    for stage in "${CHOSEN[@]}"; do
        (make_environment "$stage")
    done
}

prepare() {
    local others
    # Cached byte code makes later starts of Python programs fast.
    unset PYTHONDONTWRITEBYTECODE
    ensure_packages appliance test sandbox
    ! needs_mappings || ensure_mappings
    make_environments &
    others=$!
    ensure_venv "$ACME_WORK/venv/test" constraints.txt pyproject.toml \
        requirements.txt test-requirements.txt doc/requirements.txt -- \
        -c constraints.txt -r requirements.txt -r test-requirements.txt \
        -r doc/requirements.txt -e '.[appliance]'
    precompile "$ACME_WORK/venv/test/bin/python"
    wait $others
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
            is_one_of "$1" "${FIRST_STAGES[@]}" "${SECOND_STAGES[@]}" ||
                fail "no stage named '$1'; see --help"
            CHOSEN+=("$1")
            ;;
        esac
        shift
    done
    [ ${#CHOSEN[@]} -gt 0 ] ||
        CHOSEN=("${FIRST_STAGES[@]}" "${SECOND_STAGES[@]}")
}

main() {
    # This script calls itself so, with an NFS server or as root.
    if [ "${1:-}" = --in-sandbox ]; then
        cd "$ACME_TOP" && stestr_run "./tests/$2" --serial "${@:3}"
        exit
    fi
    parse "$@"
    cd "$ACME_TOP" || exit 1
    prepare
    run_group "${SECOND_STAGES[@]}" &
    run_group "${FIRST_STAGES[@]}"
    wait $!
    echo
    add_up
}

main "$@"
