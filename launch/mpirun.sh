#!/usr/bin/env bash
# Starts vqmoe on the ranks of this machine, of a list of hosts, or of a Slurm allocation.
# Usage: launch/mpirun.sh [OPTION...] [--] COMMAND...    launch/mpirun.sh -n 4 -- train configs/lm/enwik8-base.yaml --set run.dir=runs/a
#   -n RANKS           (default: the slots of the hosts or of the allocation, the cores of this machine)
#   --hostfile FILE    lines "HOST slots=RANKS"; ssh must reach them without a password
#   --host A:2,B:2     the same in one word
#   --gpus             a GPU for each rank, and the cores beside it
#   --restarts N       while the job ends with 85, saved and not done, starts it again, up to N times (default: 0)
#   --dry-run          prints what it would do
# USR1, USR2, TERM and Ctrl-C let the run finish its step, save and end with 85; after TERM and Ctrl-C it is not started again. A second
# TERM or Ctrl-C ends it at once. Variables that ranks elsewhere get too: NCCL_*, UCX_*, OMP_*, VQMOE_*, LD_LIBRARY_PATH.
# VQMOE is the program (default: build/vqmoe beside launch/). Any OMPI_MCA_ variable that is set already is left alone.
# Exit code: vqmoe's, or 137 where a rank was killed.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=launch/jobs
. "$here/jobs"

die() {
    echo "mpirun.sh: $*" >&2
    exit 2
}
usage() { sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; }

mpi=() hosts='' gpus='' restarts=0 dry=''
while [ $# -gt 0 ]; do
    case $1 in
        -n | --hostfile | --host | --restarts)
            [ $# -gt 1 ] || die "$1: expected a value"
            case $1 in
                -n) [[ $2 =~ ^[1-9][0-9]*$ ]] || die "-n: expected a number of ranks, found '$2'" ;;
                --restarts) [[ $2 =~ ^[0-9]+$ ]] || die "--restarts: expected a number, found '$2'" ;;
                --hostfile) [ -r "$2" ] || die "--hostfile: cannot read '$2'" ;;
            esac
            if [ "$1" = --restarts ]; then restarts=$2; else mpi+=("$1" "$2"); fi
            [[ $1 != --host* ]] || hosts=1
            shift 2
            ;;
        --gpus) gpus=1 && shift ;;
        --dry-run) dry=1 && shift ;;
        --help | -h) usage && exit ;;
        --) shift && break ;;
        -*) die "unknown option '$1': see --help" ;;
        *) break ;;
    esac
done
[ $# -gt 0 ] || die "no command of vqmoe given: see --help"
VQMOE=$(realpath -m "${VQMOE:-$here/../build/vqmoe}")
[ -x "$VQMOE" ] || die "no program $VQMOE: run launch/build, or let VQMOE say where it is"
command -v mpirun >/dev/null || die "no mpirun on the PATH: the one of the Open MPI that vqmoe was built with"

variables=$(compgen -e)
if [ -n "$hosts${SLURM_JOB_ID:-}" ]; then
    # A host that is gone is noticed in 5 s; by default in some minutes, or never.
    export OMPI_MCA_oob_tcp_keepalive_time=${OMPI_MCA_oob_tcp_keepalive_time:-2}
    export OMPI_MCA_oob_tcp_keepalive_intvl=${OMPI_MCA_oob_tcp_keepalive_intvl:-1}
    export OMPI_MCA_oob_tcp_keepalive_probes=${OMPI_MCA_oob_tcp_keepalive_probes:-3}
    # vqmoe shares the cores of a node among its ranks; bound to one, a rank's threads would share that.
    export OMPI_MCA_hwloc_base_binding_policy=${OMPI_MCA_hwloc_base_binding_policy:-none}
    for variable in $variables; do
        [[ ! $variable =~ ^(NCCL|UCX|OMP|VQMOE)_|^LD_LIBRARY_PATH$ ]] || mpi+=(-x "$variable")
    done
else
    # shellcheck source=launch/mpi-env
    . "$here/mpi-env"
fi
command=(mpirun "${mpi[@]}")
[ -z "$gpus" ] || command+=("$here/rank")

arguments=("$@")
if [ -n "$dry" ]; then
    env | grep '^OMPI_' | sort
    printf '%q ' "${command[@]}" "$VQMOE" "$@"
    echo
    [ "$restarts" = 0 ] || echo "at most $restarts times, after exit code 85: the same with --resume auto"
    exit
fi
for ((restart = 0; ; ++restart)); do
    supervise "${command[@]}" "$VQMOE" "${arguments[@]}"
    [ "$code" = 85 ] && [ -z "$stop" ] && [ $restart -lt "$restarts" ] || exit "$code"
    echo "mpirun.sh: saved and not done: restart $((restart + 1)) of $restarts" >&2
    resume_auto $((restart + 1)) "$@"
done
