"""What is shipped: one name in site-packages, all of the package and nothing else; and an import that stays quick."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
HEAVY = ("stable_baselines3", "matplotlib", "minigrid", "numba", "scipy", "tyro", "rich", "tensorboard", "tensordict")
SECONDS = 1.0  # that `import rlmin` may take beyond `import torch`


def files(folder: Path) -> set[str]:
    found = (path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(ROOT).as_posix() for path in found}


def test_sdist_and_wheel_hold_exactly_the_package(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True)  # the sdist, then a wheel from it
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    shipped = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert shipped == files(Path("rlmin"))
    assert {name.split("/")[0] for name in shipped} == {"rlmin"}, "other names would overwrite other packages"
    assert {"rlmin/py.typed", "rlmin/configs/tmaze.yaml", "rlmin/agents/ppo.py"} <= shipped
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        inside = {member.name.split("/", 1)[1] for member in archive.getmembers() if member.isfile()}
    extra = {name for name in inside if not name.startswith(("rlmin/", "tests/"))}
    assert inside - extra == files(Path("rlmin")) | files(Path("tests"))
    assert {"pyproject.toml", "PKG-INFO", "README.md", "LICENSE"} <= extra


def run(code: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    return done.stdout.strip()


def test_import_brings_in_nothing_that_only_some_runs_need() -> None:
    code = f"import sys, rlmin; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    assert run(code) == ""
    assert run(code.replace("rlmin;", "rlmin, yaml, scipy;")) == "scipy", "the arm that must fail"


def test_import_takes_no_second_beyond_torch() -> None:
    code = "import time, torch; began = time.process_time(); import rlmin; print(time.process_time() - began)"
    took = min(float(run(code)) for _ in range(2))
    assert took < SECONDS, f"import rlmin takes {took:.2f} s beyond torch"
