#!/usr/bin/env bash
# Cancels all jobs of the SLURM that start.sh started and stops its daemons, and nothing else. State, accounting and
# configuration stay: start.sh goes on with them.
set -euo pipefail
PATH="$PATH:/usr/sbin:/sbin"
# shellcheck source=slurm/single_node/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

[[ -d $home/run ]] || { say "not running."; exit 0; }
lock

# Running ones before those they need; slurmctld hands its last records to slurmdbd.
daemons=()
for file in "$home"/run/slurmd-*.pid "$home"/run/{slurmctld,slurmdbd,mariadbd,munged}.pid; do
    name=$(basename "$file" .pid)
    ! alive "$name" || daemons+=("$name")
done
((${#daemons[@]})) || { say "not running."; exit 0; }

no_jobs() { [[ -z $(timeout 10 squeue -h -o %F || echo unknown) ]]; }
if ! alive slurmctld; then
    say "slurmctld is not running, so jobs cannot be cancelled."
elif ! no_jobs; then
    say "cancelling jobs: $(timeout 10 squeue -h -r | wc -l)"
    # By array, not by task: one request each.
    timeout 60 squeue -h -o %F | sort -u | xargs -r timeout 60 scancel || true
    until_true 60 no_jobs || say "some jobs have not ended after 60 seconds; stopping all the same."
fi

failed=0
for name in "${daemons[@]}"; do
    pid=$(pid_of "$name") || continue
    echo "  stopping $name ($pid)"
    kill "$pid" || true
    gone() { ! alive "$name"; }
    if ! until_true 30 gone; then
        echo "  $name does not stop; killing it"
        kill -9 "$pid" || true
        until_true 5 gone || failed=1
    fi
    gone && rm -f "$home/run/$name.pid"
done
((failed == 0)) || die "not everything could be stopped."
say "stopped."
