#!/usr/bin/env bash
# Installs what start.sh needs for a whole SLURM on this machine, from Debian's (or Ubuntu's) own packages.
# Nothing is configured or started here. Safe to run again: does nothing when all of it is there.
set -euo pipefail

say() { echo "single-node SLURM: $*"; }

missing=()
for command in munged mungekey mariadbd mariadb-install-db mariadb-admin slurmdbd slurmctld slurmd sbatch sinfo sacct; do
    PATH="$PATH:/usr/sbin:/sbin" command -v "$command" >/dev/null || missing+=("$command")
done
if ((${#missing[@]} == 0)); then
    say "installed already."
    exit 0
fi
say "missing: ${missing[*]}"
if ((EUID != 0)); then
    say "this must run as root: it installs packages." >&2
    exit 1
fi
if ! command -v apt-get >/dev/null; then
    say "needs apt-get (Debian 12 or later, or Ubuntu 24.04 or later)." >&2
    exit 1
fi

export DEBIAN_FRONTEND=noninteractive
# Where another apt-get is at work, wait for it rather than fail.
apt=(apt-get -q -o DPkg::Lock::Timeout=300)
"${apt[@]}" update
"${apt[@]}" install -y --no-install-recommends slurm-wlm slurmdbd munge mariadb-server

# Under systemd the packages' own SLURM services would come up at the next boot, on the configuration and ports of
# start.sh's. The packages' munged and mariadbd may stay: start.sh runs its own, on sockets of their own.
if [[ -d /run/systemd/system ]]; then
    systemctl disable --quiet --now slurmctld slurmd slurmdbd || true
fi
say "installed. Start it with $(dirname "$0")/start.sh"
