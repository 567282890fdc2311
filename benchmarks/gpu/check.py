"""The stages of check.sh: `check.py STAGE` or `check.py bench NAME...`. Rows are added to $OUT/results.csv.

DRY=1 tries everything on the CPU at tiny sizes. The exit code is 1 where a check has failed.
"""

import sys

import torch
from benches import run_benches
from consistency import check_consistency
from logged_data import check_decision
from mazes import check_learning
from profiling import profile_ppo
from record import OUT, attempt, failures
from smoke import check_smoke
from speed import measure_compiled, measure_peer, measure_ppo

STAGES = {
    "smoke": check_smoke,
    "consistency": check_consistency,
    "ppo": measure_ppo,
    "compiled": measure_compiled,
    "peer": measure_peer,
    "learn": check_learning,
    "profile": profile_ppo,
    "decision": check_decision,
}


def main() -> int:
    OUT.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(2)
    name, *others = sys.argv[1:] or [""]
    if name == "bench":
        run_benches(*others)
    elif name in STAGES:
        attempt(name, STAGES[name])
    else:
        print(f"check.py: expected bench or one of {', '.join(STAGES)}, got {name!r}", file=sys.stderr)
        return 2
    if failures:
        print("   failed:", *failures[:20], sep="\n      ")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
