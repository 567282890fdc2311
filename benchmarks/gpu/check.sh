#!/usr/bin/env bash
# On a GPU machine, in a clone: every check of rlmin on a real GPU, most valuable first, in eight minutes at most.
#
#   bash benchmarks/gpu/check.sh                   all stages, see below
#   STAGES="D1 F" bash benchmarks/gpu/check.sh     these only
#   DRY=1 bash benchmarks/gpu/check.sh             on the CPU, at tiny sizes: whether commands and imports are right
#
# Without a network, run prepare.sh elsewhere first: wheels in .whl are used where they are there. In $OUT (gpu-out):
# log.txt, results.csv, stages.txt, profile.txt, pytest*.xml, bench-*.tgz. Other settings: BUDGET, seconds for everything;
# PY, the interpreter; LINES_SHOWN of each stage, the rest is in the log.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd); root=$(cd "$here/../.." && pwd); cd "$root"
DRY=${DRY:-}; OUT=${OUT:-$root/gpu-out}; BUDGET=${BUDGET:-490}; PY=${PY:-python3}
[ -n "$DRY" ] && BUDGET=99999
mkdir -p "$OUT"; : >"$OUT/log.txt"; : >"$OUT/stages.txt"; rm -f "$OUT"/results.csv "$OUT"/profile.txt
began=$(date +%s); work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; log=$OUT/log.txt
export OUT DRY GPU_WORK=$work PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=2 MPLBACKEND=agg
unset RLMIN_KERNEL TRITON_INTERPRET
say() { echo "$@" | tee -a "$log"; }
say "rlmin GPU check, DRY=${DRY:-0}, $(date -u +%FT%TZ), commit $(git log -1 --format=%h 2>/dev/null || echo '?')"

export PYTHONPATH=$root:$root/tests${PYTHONPATH:+:$PYTHONPATH}
if [ -z "$DRY" ] && compgen -G '.whl/*.whl' >/dev/null; then
    $PY -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$work/site" .whl/*.whl \
        >>"$log" 2>&1 || { say "wheels: pip failed"; tail -5 "$log"; exit 1; }
    PYTHONPATH=$PYTHONPATH:$work/site
fi
export RLMIN_CACHE=$work TRITON_CACHE_DIR=$work/triton NUMBA_CACHE_DIR=$work/numba
[ -n "$DRY" ] && export RLMIN_KERNEL=portable  # numba would compile for minutes

wanted=" ${STAGES:-A B0 C D1 D2 D3 D4 F E1 G B E2} "
stage() {  # NAME LIMIT WHAT COMMAND...
    local name=$1 limit=$2 what=$3; shift 3
    [[ $wanted == *" $name "* ]] || return 0
    local left=$((BUDGET - ($(date +%s) - began)))
    if [ "$left" -lt 12 ]; then
        echo "$name|skipped|0|$what" >>"$OUT/stages.txt"; say "== $name skipped: out of time"; return 0
    fi
    [ "$limit" -gt "$left" ] && limit=$left
    [ -n "$DRY" ] && limit=900
    say; say "== $name: $what (at most $limit s)"
    local from rc to; from=$(date +%s)
    STAGE=$name timeout -k 5 "$limit" "$@" > >(tee -a "$log" | tail -n "${LINES_SHOWN:-14}") 2>&1; rc=$?
    to=$(date +%s); sleep 0.2
    echo "$name|$rc|$((to - from))|$what" >>"$OUT/stages.txt"
}
check="$PY $here/check.py"
workers=$([ -n "$DRY" ] && echo 1 || echo 14)
# filterwarnings: the project makes warnings errors, and other versions of packages warn of other things. no:benchmark:
# that plugin warns beside xdist. Kernels of the GPU only: the others are tested on every machine.
tests=($PY -m pytest -p no:cacheprovider -p no:benchmark -o "filterwarnings=default" -q --maxfail=40 --tb=short)
$PY -c "import xdist" 2>/dev/null && [ "$workers" -gt 1 ] && tests+=(-n "$workers" --dist=load)
own="not (without_a_compiler or only_when_interpreted)" laws="gpu and not million"
[ -n "$DRY" ] && own="chosen_by_shape" laws="equation and portable"

stage A   75 "smoke: devices, versions, a copy, products, three updates" $check smoke
stage B0  80 "the GPU's own tests: kernels, graphs, inductor, 64-bit offsets" \
    "${tests[@]}" --junitxml="$OUT/pytest0.xml" tests/test_scan_gpu.py tests/test_rollout_graph_gpu.py -k "$own" \
    tests/test_{norm_conv,feed_forward,fused_losses,rnn_gpu}.py \
    tests/test_step_graph.py::test_on_a_gpu_a_graph_is_the_ordinary_update
stage C   75 "acting = training for every encoder; runs travel between devices; games as graphs" $check consistency
stage D1  70 "PPO, steps a second: environments x (graph, loop, TF32, autocast)" $check ppo
stage D2  40 "PPO learns the T-maze" $check learn
stage D3  60 "PPO with torch.compile" $check compiled
stage D4  45 "PPO beside sb3-contrib's RecurrentPPO" $check peer
stage F   40 "profile of an iteration of PPO: kernels, launches, waits" $check profile
stage E1  45 "bench scan and update" $check bench scan update
stage G   40 "decision agent: training, targets" $check decision
stage B   90 "laws of the scans, operators" \
    "${tests[@]}" --junitxml="$OUT/pytest.xml" tests/test_scan.py tests/test_scan_operators.py -k "$laws"
stage E2  50 "bench cell, act and train" $check bench cell act train

{
    echo; echo "stage  rc   s  what"
    while IFS='|' read -r name rc took what; do printf '%-5s %4s %4s  %s\n' "$name" "$rc" "$took" "$what"; done \
        <"$OUT/stages.txt"
    echo "total $(($(date +%s) - began)) s"
    [ -f "$OUT/results.csv" ] && { echo; head -60 "$OUT/results.csv"; }
} 2>&1 | tee -a "$log"
! grep -qvE '^[^|]*\|(0|skipped)\|' "$OUT/stages.txt"
