#!/usr/bin/env bash
# On a machine with a network, inside a clone: fetch what a GPU machine without one needs.
#
#   bash benchmarks/gpu/prepare.sh
#
# Wheels that an image with torch, triton, numba, matplotlib and pytest lacks go to .whl/ (about 20 MiB; Python 3.12 on
# x86-64, or PYTHON=3.11 in the environment). Copy the clone with .whl to the GPU machine, and run there:
#
#   bash benchmarks/gpu/check.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# --no-deps below, so every need is named: tensordict needs pyvers, orjson and importlib_metadata, minigrid pygame-ce,
# tyro docstring_parser and typeguard
names=(gymnasium Farama-Notifications minigrid pygame-ce tensordict pyvers orjson importlib_metadata
       lazy-importer stable_baselines3 sb3_contrib tyro docstring_parser typeguard)
wanted=()
for name in "${names[@]}"; do
    pin=$(grep -i -m1 "^$name==" constraints.txt || true)
    [ -n "$pin" ] || { echo "$name: expected a version in constraints.txt, found none" >&2; exit 1; }
    wanted+=("$pin")
done
python=${PYTHON:-3.12}
stamp=$(printf '%s\n' "$python" "${wanted[@]}" | sha256sum | cut -c1-16)
if [ "$(cat .whl/.stamp 2>/dev/null || true)" != "$stamp" ]; then
    rm -rf .whl && mkdir -p .whl
    platforms=()
    for glibc in 2_28 2_27 2_24 2_17; do platforms+=(--platform "manylinux_${glibc}_x86_64"); done
    platforms+=(--platform manylinux2014_x86_64 --platform manylinux1_x86_64)
    PIP_CONSTRAINT='' python3 -m pip download -q --no-deps --only-binary=:all: --python-version "$python" \
        --implementation cp "${platforms[@]}" -d .whl "${wanted[@]}"
    echo "$stamp" >.whl/.stamp
fi
found=(.whl/*.whl)
[ "${#found[@]}" -eq "${#names[@]}" ] || { echo "expected ${#names[@]} wheels, found: ${found[*]}" >&2; exit 1; }
for file in "${found[@]}"; do python3 -m zipfile -t "$file" >/dev/null; done
echo "${#found[@]} wheels, $(($(du -sk .whl | cut -f1) / 1024)) MiB in .whl"
