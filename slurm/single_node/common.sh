# shellcheck shell=bash
# What start.sh and stop.sh share; sourced, not run.

home=${ORCHESTRATOR_SLURM_HOME:-/var/lib/orchestrator-slurm}
# shellcheck disable=SC2034 # start.sh reads it
marker="# Written by the orchestrator's slurm/single_node/start.sh, which overwrites it. State: "

# A caller's SLURM_* settings (or those of a job that this runs in) must not lead the commands elsewhere.
unset "${!SLURM_@}" "${!SBATCH_@}" "${!SQUEUE_@}" "${!SINFO_@}" "${!SCANCEL_@}"
export SLURM_CONF="$home/etc/slurm.conf"

say() { echo "single-node SLURM: $*"; }
die() {
    say "$@" >&2
    exit 1
}

((EUID == 0)) || die "this must run as root: it starts system daemons and makes device files."
[[ $home =~ ^/[A-Za-z0-9._/+-]+$ ]] || die "ORCHESTRATOR_SLURM_HOME must be an absolute path of plain characters, not '$home'."
# A unix socket's path may have 107 characters.
((${#home} <= 80)) || die "ORCHESTRATOR_SLURM_HOME is too long for a socket's path: '$home'."

# pid_of NAME: the pid of a daemon that start.sh started, if it is still alive. A pid file survives a kill -9 and a
# reboot, and by then its number can be any other process's: believe it only where that process runs the right program.
# (Debian's programs are called slurmd-wlm and so on; one replaced by an upgrade reads "... (deleted)".)
pid_of() {
    local pid program
    read -r pid 2>/dev/null <"$home/run/$1.pid" || [[ -n ${pid:-} ]] || return 1
    program=$(readlink "/proc/$pid/exe" 2>/dev/null) || return 1
    program=$(basename "${program% (deleted)}")
    [[ ${program%-wlm} == "${1%%-*}" ]] || return 1
    echo "$pid"
}

alive() { pid_of "$1" >/dev/null; }

# until_true SECONDS COMMAND...: polls; false when time is up.
until_true() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < end)) || return 1
        sleep 0.1
    done
}

# One start or stop at a time. The daemons must not inherit descriptor 9, or they would hold the lock for as long as they live.
lock() {
    mkdir -p "$home"
    exec 9>"$home/lock"
    flock -w 120 9 || die "another start.sh or stop.sh has been at work for two minutes (it holds $home/lock)."
}
