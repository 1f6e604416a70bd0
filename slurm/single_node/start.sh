#!/usr/bin/env bash
# Starts a real SLURM on this one machine, with accounting and eight pretend GPUs, for tests and for trying things out.
#
#   start.sh             one node, n1, with 8 GPUs
#   start.sh --nodes 2   two nodes, n1 and n2, with 4 GPUs each
#
# Needs no systemd. All state is in ORCHESTRATOR_SLURM_HOME (default /var/lib/orchestrator-slurm), except
# /etc/slurm/slurm.conf, where SLURM's commands look, and the devices /dev/fakegpu*. Safe to run again at any time: it starts
# what is not running. Jobs left from before a reboot are taken up again by SLURM, as on any cluster.
set -euo pipefail
PATH="$PATH:/usr/sbin:/sbin"
# shellcheck source=slurm/single_node/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

nodes=
while (($#)); do
    case $1 in
    --nodes) nodes=${2:-}; shift ;;
    --nodes=*) nodes=${1#*=} ;;
    *) nodes=unknown ;;
    esac
    [[ $nodes == [12] ]] || die "usage: start.sh [--nodes 1|2]"
    shift
done
for command in munged mariadbd slurmdbd slurmctld slurmd; do
    command -v "$command" >/dev/null || die "$command is not installed: run $(dirname "$0")/install.sh first."
done

# give_up DAEMON WHAT: says what is wrong, with the end of the daemon's log.
give_up() {
    {
        say "$2. The end of $home/log/$1.log:"
        tail -n 20 "$home/log/$1.log" 2>/dev/null | sed 's/^/    /' || true
    } >&2
    exit 1
}

# launch DAEMON COMMAND...: unless it runs. Every daemon goes into the background by itself and writes its pid file.
# It gets a bare environment, for jobs and logs that do not depend on who happened to call start.sh.
launch() {
    local name=$1
    shift
    ! alive "$name" || return 0
    echo "  $name"
    env -i PATH="$PATH" LANG=C.UTF-8 SLURM_CONF="$SLURM_CONF" MYSQL_UNIX_PORT="$home/run/mariadbd.sock" \
        "$@" </dev/null >>"$home/log/$name.log" 2>&1 9>&- || give_up "$name" "$name did not start"
}

# ready DAEMON SECONDS COMMAND...: waits for the daemon to answer.
ready() {
    until_true "$2" "${@:3}" || give_up "$1" "$1 does not answer after $2 seconds"
}

# How many nodes there are where anything that knows is alive, else 0.
running_nodes() {
    if alive slurmctld || alive slurmd-n1 || alive slurmd-n2; then
        grep -c '^NodeName=' "$SLURM_CONF"
    else
        echo 0
    fi
}

lock

# --- What is there already ------------------------------------------------------------------------------------------

system_conf=/etc/slurm/slurm.conf
if [[ -e $system_conf || -L $system_conf ]]; then
    first=$(head -n 1 "$system_conf" 2>/dev/null || true)
    [[ $first == "$marker"* ]] ||
        die "$system_conf is not of this script's making: this machine seems to belong to a cluster. Nothing was changed."
    other=${first#"$marker"}
    if [[ $other != "$home" ]] && { home=$other alive slurmctld || home=$other alive slurmd-n1; }; then
        die "another one runs already, from $other. Stop it with ORCHESTRATOR_SLURM_HOME=$other $(dirname "$0")/stop.sh"
    fi
fi

running=$(running_nodes)
if ((running)) && [[ ${nodes:-$running} != "$running" ]]; then
    die "runs already with $running node(s), not $nodes: run $(dirname "$0")/stop.sh first."
fi
((running == 0)) || nodes=$running
nodes=${nodes:-1}
names=(n1)
((nodes == 1)) || names=(n1 n2)

daemons=(munged mariadbd slurmdbd slurmctld "${names[@]/#/slurmd-}")
dead=()
for daemon in "${daemons[@]}"; do
    alive "$daemon" || dead+=("$daemon")
done
if ((${#dead[@]} == 0)) && timeout 20 sinfo >/dev/null 2>&1; then
    say "already running, $nodes node(s)."
    exit 0
fi
say "starting with $nodes node(s), state in $home"

# --- Directories, devices, configuration ----------------------------------------------------------------------------

mkdir -p "$home"/{etc,run,log,state,spool,munge}
chmod 755 "$home" "$home"/{etc,run,log}
chmod 700 "$home"/{state,spool,munge}
# Everything that is dead is known by now: with its pid file gone, no new process can be mistaken for it.
for daemon in "${dead[@]}"; do rm -f "$home/run/$daemon.pid"; done

# /dev is in memory, so these are gone after a reboot. What they do (that of /dev/null) does not matter: SLURM only wants
# one device file for each GPU, and then hands out CUDA_VISIBLE_DEVICES as if they were real.
for i in {0..7}; do
    [[ -c /dev/fakegpu$i ]] || mknod -m 666 "/dev/fakegpu$i" c 1 3
done

[[ -s $home/munge/key ]] || mungekey --create --force --keyfile "$home/munge/key"

host=$(hostname -s)
# SLURM's daemons can listen on the address of the machine's name, or on all addresses. The first is loopback on most
# machines that are not servers; inside a container it is the container's own, and there they listen on all. Either way
# nothing is accepted without munge's key.
address=$(getent ahostsv4 "$(hostname)" | awk 'NR == 1 { print $1 }') || address=
listen=CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
if [[ $address != 127.* ]]; then
    address=127.0.0.1
    listen=
fi
per_node=$((8 / nodes))
# write FILE MODE: in one step, so that a script killed half-way leaves the old file or the new one.
write() {
    cat >"$1.new"
    chmod "$2" "$1.new"
    mv "$1.new" "$1"
}

write "$home/etc/slurmdbd.conf" 600 <<END
DbdHost=$host
DbdAddr=$address
$listen
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$home/run/munged.sock
PidFile=$home/run/slurmdbd.pid
LogFile=$home/log/slurmdbd.log
# Over mariadbd's socket (MYSQL_UNIX_PORT says where), which knows root by the process's owner: no password, no port.
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm
END

write "$home/etc/gres.conf" 644 <<END
AutoDetect=off
$(for n in "${names[@]}"; do echo "NodeName=$n Name=gpu File=/dev/fakegpu[0-$((per_node - 1))]"; done)
END

# From 23.11 on slurmd insists on cgroups unless told otherwise; before that, it does not know this setting.
version=$(slurmd -V | grep -oE '[0-9]+\.[0-9]+' | head -n 1)
if [[ $(printf '%s\n' 23.11 "$version" | sort -V | head -n 1) == 23.11 ]]; then
    write "$home/etc/cgroup.conf" 644 <<<"CgroupPlugin=disabled"
fi

write "$home/etc/slurm.conf" 644 <<END
$marker$home
ClusterName=orchestrator
SlurmctldHost=$host($address)
$listen
SlurmUser=root
AuthType=auth/munge
# A requeued job waits for cred_expire seconds (by default 120) before it can start again.
AuthInfo=socket=$home/run/munged.sock,cred_expire=10
SlurmctldPidFile=$home/run/slurmctld.pid
SlurmctldLogFile=$home/log/slurmctld.log
SlurmdPidFile=$home/run/slurmd-%n.pid
SlurmdLogFile=$home/log/slurmd-%n.log
SlurmdSpoolDir=$home/spool/%n
StateSaveLocation=$home/state
MailProg=/bin/true

# No cgroups, no binding: they need rights that containers lack, and there are fewer cores than the nodes claim.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherParams=OverMemoryKill
MpiDefault=none
# The nodes' CPUs and memory are claimed, not real. A job's memory is looked at now and then (every 30 seconds, or as often as
# it says: --acctg-freq=task=1), and what has taken more than it asked for is killed.
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=2000
GresTypes=gpu

MaxArraySize=10001
MaxJobCount=20000
MinJobAge=300
KillWait=5
# A node whose slurmd has died is down, and its jobs are back in the queue, after about half a minute.
SlurmdTimeout=10
ReturnToService=2
# Short waits instead of high throughput.
SchedulerParameters=sched_min_interval=0,batch_sched_delay=0,bf_interval=5
# A job in 'urgent' preempts those in the other partitions, which go back into the queue.
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE

AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=$address
# Not a password with munge, but the socket again: AuthInfo is not looked at for this connection.
AccountingStoragePass=$home/run/munged.sock
AccountingStorageTRES=gres/gpu
AccountingStoreFlags=job_comment

$(for n in "${names[@]}"; do
    echo "NodeName=$n NodeHostname=$host NodeAddr=$address Port=$((17000 + ${n#n})) CPUs=$((64 / nodes)) RealMemory=$((512000 / nodes)) Gres=gpu:$per_node State=UNKNOWN"
done)
PartitionName=gpu Nodes=ALL Default=YES MaxTime=UNLIMITED PriorityTier=1
PartitionName=short Nodes=ALL MaxTime=1 PriorityTier=1
PartitionName=urgent Nodes=ALL MaxTime=UNLIMITED PriorityTier=10
END

mkdir -p /etc/slurm
write "$system_conf" 644 <"$SLURM_CONF"

# --- The daemons, each after those that it needs --------------------------------------------------------------------

# All of them as root: then the state can be anywhere, and nothing hangs on who owns what. None needs more than loopback.
launch munged munged --socket="$home/run/munged.sock" --key-file="$home/munge/key" --pid-file="$home/run/munged.pid" \
    --seed-file="$home/munge/seed" --log-file="$home/log/munged.log"
ready munged 10 munge -n -S "$home/run/munged.sock"

database() { # the tables, in one step for the same reason as write
    rm -rf "$home/mariadb.new"
    mariadb-install-db --no-defaults --user=root --datadir="$home/mariadb.new" --skip-test-db \
        --auth-root-authentication-method=socket >>"$home/log/mariadbd.log" 2>&1 9>&- ||
        give_up mariadbd "the database could not be made"
    mv "$home/mariadb.new" "$home/mariadb"
}
[[ -d $home/mariadb ]] || database
# mariadbd alone does not go into the background by itself.
launch mariadbd bash -c 'setsid "$@" &' - mariadbd --no-defaults --user=root --datadir="$home/mariadb" \
    --socket="$home/run/mariadbd.sock" --pid-file="$home/run/mariadbd.pid" --skip-networking \
    --innodb-lock-wait-timeout=900 --innodb-flush-log-at-trx-commit=2
ready mariadbd 60 mariadb-admin --no-defaults --socket="$home/run/mariadbd.sock" ping

launch slurmdbd slurmdbd
ready slurmdbd 60 timeout 5 sacctmgr -n list cluster
if [[ -z $(sacctmgr -n list cluster orchestrator format=cluster) ]]; then
    # Before slurmctld starts: it would otherwise run without accounting.
    sacctmgr -i add cluster orchestrator >>"$home/log/slurmdbd.log" 2>&1 || give_up slurmdbd "the cluster could not be added"
fi

# Jobs of one layout of nodes and GPUs cannot be taken up in another: then slurmctld forgets them (-c).
layout=$(cat "$home/state/layout" 2>/dev/null || echo "$nodes")
clear=()
((layout == nodes)) || clear=(-c)
launch slurmctld slurmctld -f "$SLURM_CONF" "${clear[@]}"
echo "$nodes" >"$home/state/layout"
ready slurmctld 30 timeout 5 scontrol show config

for n in "${names[@]}"; do launch "slurmd-$n" slurmd -f "$SLURM_CONF" -N "$n"; done

# --- Until it is usable ---------------------------------------------------------------------------------------------

# "idle", or "mixed" and the like where jobs from before go on; "idle*" is a node that does not answer.
up() {
    local states
    states=$(timeout 5 sinfo -h -N -p gpu -o %T) || return 1
    # Drained by hand or by SLURM in an earlier life: a start is a new one.
    ! grep -q '^drain' <<<"$states" || scontrol update nodename=ALL state=resume
    (($(grep -cxE 'idle|mixed|allocated|completing' <<<"$states") == nodes))
}
if ! until_true 60 up; then
    sinfo -N -o '%N %T %E' >&2 || true
    for n in "${names[@]}"; do alive "slurmd-$n" || give_up "slurmd-$n" "slurmd-$n has died"; done
    give_up slurmctld "not all nodes are idle after 60 seconds"
fi

left=$(squeue -h -r | wc -l)
((left == 0)) || say "$left job(s) from before are still in the queue (squeue shows them, scancel ends them)."
say "ready after $SECONDS s. Try:"
echo "    sinfo"
echo "    srun -n1 --gres=gpu:1 env | grep CUDA"
