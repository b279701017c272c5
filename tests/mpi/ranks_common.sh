# For tests that run the program as a user does. Sourced with the program as $1: puts the test into an empty folder
# of its own that holds a text and the configuration of a small model, base.yaml.
# shellcheck shell=bash
set -uo pipefail
export LC_ALL=C
sources=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../../launch/mpi-env
. "$sources/../../launch/mpi-env"
vqmoe=$(realpath "${1:?expected the program as first argument}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1

"$sources/ranks_text" 60000 1 >train.txt
"$sources/ranks_text" 4000 2 >valid.txt
# 7 rows and 7 experts: neither 2, 3 nor 4 ranks divide them. One thread: on a busy machine two wait for each other.
cat >base.yaml <<YAML
data: {train: $work/train.txt, valid: $work/valid.txt}
model: {layers: 2, d_model: 32, heads: 2, d_head: 16, d_inner: 48, segment: 32,
        memory: 32, dropout: 0.1, attention_dropout: 0.1}
moe: {experts: 7}
router: {balance: 0.01}
optim: {lr: 0.003, warmup: 5, decay_steps: 50}
train: {batch: 7, steps: 50, log_every: 1}
eval: {every: 25, batch: 5, segment: 32}
checkpoint: {every_steps: 25}
parallel: {threads: 1}
YAML

failures=0
fail() {
    printf 'FAILED: %s\n' "$*"
    failures=$((failures + 1))
}
finish() {
    if [ "$failures" -gt 0 ]; then
        printf '%s failed\n' "$failures"
        exit 1
    fi
}

# on RANKS ARGUMENTS...: the program, alone or under mpirun
on() {
    local ranks=$1
    shift
    if [ "$ranks" = 1 ]; then "$vqmoe" "$@"; else mpirun -n "$ranks" "$vqmoe" "$@"; fi
}

# must_on RANKS ARGUMENTS...: the same, where anything but success ends the test; output in log.txt
must_on() {
    on "$@" >log.txt 2>&1 && return
    cat log.txt
    fail "on $1 ranks: vqmoe ${*:2}"
    finish
}

# The metrics of a run without its speed.
metrics() { sed 's/,"\(tokens_per_s\|seconds\)":[^,}]*//' "$1/metrics.jsonl"; }

# same_bits A B: checkpoints with the same arrays, and the same attributes but for the configuration (run.dir is in it)
same_bits() {
    local part
    "$vqmoe" inspect "$1" | grep -v ^configuration >one.txt
    "$vqmoe" inspect "$2" | grep -v ^configuration >other.txt
    grep -q '^/moments/second/layer.1' one.txt && diff one.txt other.txt || return
    for part in $(grep -o '^/[a-z]*' one.txt | sort -u); do # /parameters and the like
        h5diff "$1" "$2" "$part" "$part" || return
    done
}
