"""Runs on the Hugging Face hub: huggingface_hub itself, against a hub on this machine that answers its few requests.

What is pushed is the card and the files that rlmin reads; what comes back acts as before. Everything else is an error.
"""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
import torch
import yaml
from large import need

import rlmin
from rlmin.cli import main
from rlmin.data import Episode
from rlmin.interop.hub import load_from_hub, push_to_hub
from rlmin.interop.model_card import CARD, LOCAL, write_card
from rlmin.runs.checkpoint import CONFIG, LEARNER, POLICY

huggingface_hub, constants = need("huggingface_hub"), need("huggingface_hub.constants")
pytestmark = pytest.mark.needs("huggingface_hub")

REPO = "someone/a-run"


class Hub(ThreadingHTTPServer):
    """Model repositories, each a list of commits: the newest is "main"."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Requests)
        self.repos: dict[str, list[dict[str, bytes]]] = {}
        self.private: set[str] = set()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def files(self, repo: str, revision: str) -> dict[str, bytes] | None:
        commits = self.repos.get(repo) or [{}]  # none yet: an empty repository
        for number, files in enumerate(commits):
            if revision in (sha(repo, number), "main" if number == len(commits) - 1 else f"v{number}"):
                return files
        return None


def sha(repo: str, commit: int) -> str:
    return hashlib.sha1(f"{repo} {commit}".encode()).hexdigest()


class Requests(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *about: Any) -> None:
        pass

    def answer(self, content: Any, status: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path = urlsplit(self.path).path
        if path == "/api/validate-yaml":
            content = json.loads(body)["content"]
            assert isinstance(yaml.safe_load(content.split("---")[1]), dict)
            return self.answer({})
        if path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked.get('organization') or 'someone'}/{asked['name']}"
            self.server.repos.setdefault(repo, [])
            if asked.get("private") or asked.get("visibility") == "private":
                self.server.private.add(repo)
            return self.answer({"url": f"{self.server.url}/{repo}"})
        repo, action = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/main", path).groups()  # type: ignore[union-attr]
        if action == "preupload":
            names = [file["path"] for file in json.loads(body)["files"]]
            told = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]
            return self.answer({"files": told})
        lines = [json.loads(line) for line in body.splitlines()]
        added = {x["value"]["path"]: base64.b64decode(x["value"]["content"]) for x in lines if x["key"] == "file"}
        commits = self.server.repos[repo]
        removed = {x["value"]["path"] for x in lines if x["key"] == "deletedFile"}
        before = commits[-1] if commits else {}
        assert removed <= before.keys(), "the hub refuses to delete what is not there"
        commits.append({name: content for name, content in before.items() if name not in removed} | added)
        oid = sha(repo, len(commits) - 1)
        self.answer({"commitUrl": f"{self.server.url}/{repo}/commit/{oid}", "commitOid": oid})

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        about = re.fullmatch(r"/api/models/([^/]+/[^/]+?)(?:/(revision|tree)/(.+))?", path)
        repo, kind, rest = about.groups() if about else re.fullmatch(r"/([^/]+/[^/]+)/(resolve)/(.+)", path).groups()  # type: ignore[union-attr]
        if repo not in self.server.repos:
            return self.answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
        revision, _, name = (rest or "main").partition("/")
        files = self.server.files(repo, revision)
        if files is None:
            return self.answer({"error": "Revision not found"}, 404, X_Error_Code="RevisionNotFound")
        number = self.server.repos[repo].index(files) if self.server.repos[repo] else 0
        if kind == "resolve":
            if name not in files:
                return self.answer({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound")
            etag = f'"{hashlib.sha1(files[name]).hexdigest()}"'
            return self.answer(files[name], ETag=etag, X_Repo_Commit=sha(repo, number))
        if kind == "tree":
            digests = {path: hashlib.sha1(x).hexdigest() for path, x in files.items()}
            told = [{"type": "file", "path": path, "size": len(files[path]), "oid": x} for path, x in digests.items()]
            return self.answer(told)
        self.answer({"id": repo, "sha": sha(repo, number), "siblings": [{"rfilename": path} for path in files]})

    do_HEAD = do_GET


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub on this machine, and settings that name it, as HF_ENDPOINT, HF_HUB_CACHE and HF_TOKEN would."""
    monkeypatch.chdir(tmp_path)
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def run(hub: Hub) -> Path:
    """A run as training leaves it, and files beside it that are nobody's business."""
    small = "--width 8 --horizon 10 --num-envs 4 --minibatches 2 --total-timesteps 80 --eval-episodes 0 --evaluations 0"
    main(["train", "tmaze", *small.split(), "--env-kwargs", "length=4", "--folder", "run"])
    (Path("run") / "secret.pkl").write_bytes(b"no")
    (Path("run") / "program.py").write_text("raise SystemExit")
    return Path("run")


def acts_alike(a: Any, b: Any) -> bool:
    space = a.policy.observation_space
    space.seed(0)
    seen = [space.sample() for _ in range(20)]
    acts = a.actor(deterministic=False, seed=3), b.actor(deterministic=False, seed=3)
    return all(np.array_equal(acts[0](x), acts[1](x)) for x in seen)


def weights(agent: Any) -> list[Any]:
    return [x.tolist() for x in agent.policy.state_dict().values()]


def snippet(card: str) -> str:
    return card.split("```python\n")[1].split("```")[0]


def test_a_run_is_pushed_with_its_card_and_comes_back_as_it_was(
    hub: Hub, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["hub", "card", str(run), "--episodes", "8"])
    main(["hub", "push", str(run), REPO, "--private"])
    assert capsys.readouterr().out.splitlines()[-2:] == [str(run / CARD), f"{hub.url}/{REPO}"]
    (pushed,) = hub.repos[REPO]
    assert set(pushed) == {CARD, CONFIG, POLICY, "metrics.csv", "curve.png"} and hub.private == {REPO}
    assert pushed[POLICY] == (run / POLICY).read_bytes()

    agent, back = rlmin.load(run), rlmin.load(f"hf://{REPO}")
    assert acts_alike(agent, back) and back.num_timesteps == agent.num_timesteps == 80
    other = rlmin.load(run)
    other.policy.action_head.projection.weight.data.add_(torch.randn(4, 8))
    assert not acts_alike(agent, other)
    main(["evaluate", f"hf://{REPO}", "--episodes", "4"])
    assert "(4 episodes" in capsys.readouterr().out
    assert LOCAL not in pushed[CARD].decode()
    exec(snippet(pushed[CARD].decode()), {})

    with pytest.raises(ValueError, match="incomplete run, expected learner"):
        agent.resume(Path(constants.HF_HUB_CACHE, f"models--{REPO.replace('/', '--')}", "snapshots", sha(REPO, 0)))
    push_to_hub(run, REPO, with_learner=True)
    assert LEARNER in hub.repos[REPO][-1] and load_from_hub(REPO, revision="main").num_updates == agent.num_updates
    assert load_from_hub(REPO, revision=sha(REPO, 0)).num_timesteps == 80
    assert acts_alike(rlmin.load(f"hf://{REPO}@v0"), agent)


def test_what_an_earlier_push_left_is_not_loaded(hub: Hub, run: Path) -> None:
    push_to_hub(run, REPO, with_learner=True)
    hub.repos[REPO][-1]["notes.txt"] = b"of another"
    early = {name: (run / name).read_bytes() for name in (CONFIG, LEARNER)}
    main(["train", "--resume", str(run), "--total-timesteps", "120"])
    (run / "curve.png").unlink()
    push_to_hub(run, REPO)
    assert set(hub.repos[REPO][-1]) == {CARD, CONFIG, POLICY, "metrics.csv", "notes.txt"}
    assert rlmin.load(f"hf://{REPO}").num_timesteps == 120
    assert LEARNER in hub.repos[REPO][0] and rlmin.load(f"hf://{REPO}@{sha(REPO, 0)}").num_timesteps == 80

    agent = rlmin.load(run)
    (run / LEARNER).write_bytes(early[LEARNER])  # as in a repository of an older push
    assert early[CONFIG] == (run / CONFIG).read_bytes()
    assert rlmin.load(run).num_timesteps == 120 and weights(rlmin.load(run)) == weights(agent)
    (run / POLICY).write_bytes(hub.repos[REPO][0][POLICY])
    assert rlmin.load(run).num_timesteps == 80 and weights(rlmin.load(run)) != weights(agent)


def test_what_was_brought_here_once_needs_no_hub_any_more(hub: Hub, run: Path) -> None:
    push_to_hub(run, REPO)
    agent = rlmin.load(f"hf://{REPO}")
    hub.shutdown()
    hub.server_close()
    huggingface_hub.close_session()
    assert acts_alike(rlmin.load(f"hf://{REPO}"), agent)
    with pytest.raises(ConnectionError, match=r"hf://someone/other: not reached, and not brought here before"):
        rlmin.load("hf://someone/other")
    with pytest.raises(OSError, match=REPO):
        push_to_hub(run, REPO)


def test_the_card_is_one_the_hub_reads_and_its_program_runs(
    hub: Hub, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_card(run, episodes=8)
    read = huggingface_hub.ModelCard.load(file)
    assert read.data.library_name == "rlmin"
    assert {"reinforcement-learning", "ppo", "rlmin/TMaze-v0"} <= set(read.data.tags)
    assert [result.metric_type for result in read.data.eval_results] == ["mean_reward", "success_rate"]
    assert read.data.eval_results[0].dataset_type == "rlmin/TMaze-v0" and read.data.model_name == "run"
    text = file.read_text()
    for part in ("80 steps of training", "(length=4)", "| greedy |", "![return", "Discrete(4)", "- observation: `Box("):
        assert part in text, part
    monkeypatch.chdir(run)
    exec(snippet(text), {})
    assert LOCAL in text

    write_card(Path(), episodes=0)
    assert "Scores" not in Path(CARD).read_text() and "model-index" not in Path(CARD).read_text()


@pytest.mark.parametrize(
    ("origin", "installation"),
    [
        ({"url": "https://git.example/rlmin", "vcs_info": {"vcs": "git", "commit_id": "abc"}}, "git.example/rlmin@abc"),
        ({"url": "https://me:secret@git.example/rlmin", "vcs_info": {"vcs": "git", "commit_id": "abc"}}, "a clone"),
        ({"url": "file:///home/me/rlmin", "dir_info": {"editable": True}}, "a clone"),
    ],
)
def test_a_card_names_an_installation_that_works_and_no_place_on_this_machine(
    origin: dict[str, Any], installation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = tmp_path / "packages" / "rlmin-0.1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: rlmin\nVersion: 0.1.0\n")
    (metadata / "direct_url.json").write_text(json.dumps(origin))
    monkeypatch.syspath_prepend(str(metadata.parent))
    rlmin.PPO("CartPole-v1", num_envs=2, horizon=8, width=8, seed=0).save(tmp_path / "run")
    text = write_card(tmp_path / "run", episodes=0).read_text()
    assert installation in text
    assert "secret" not in text and "/home/me" not in text


def test_the_card_of_a_decision_agent_and_of_an_unknown_environment(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    space = rlmin.make_vec("CartPole-v1", 1).single_observation_space
    episodes = [Episode([space.sample() for _ in range(n + 1)], [0, 1] * (n // 2), [1.0] * n, True) for n in (4, 8)]
    rlmin.DecisionAgent(episodes, env="CartPole-v1", width=8).save("aims")
    text = write_card("aims", episodes=4).read_text()
    assert "| greedy, asked for a return of 8 |" in text and "| greedy, asked for a return of 6 |" in text
    rlmin.DecisionAgent(episodes, width=8).save("nowhere")
    unknown = write_card("nowhere").read_text()
    assert "Scores" not in unknown and "model-index" not in unknown
    for folder, card in (("aims", text), ("nowhere", unknown)):
        with monkeypatch.context() as there:
            there.chdir(folder)
            exec(snippet(card), {})


def test_a_repository_without_a_run_is_refused(hub: Hub, run: Path) -> None:
    hub.repos["someone/empty"] = [{}]
    hub.repos["someone/other"] = [{"README.md": b"hello", "config.json": b"{}"}]
    hub.repos["someone/pickled"] = [{"README.md": b"hello", "ppo-CartPole-v1.zip": b"PK"}]
    hub.repos["someone/foreign"] = [{CONFIG: b"{}", POLICY: foreign()}]
    hub.repos["someone/beside"] = [
        {name: (run / name).read_bytes() for name in (CONFIG, POLICY)} | {"model.pkl": b"never read"}
    ]
    for place, message in {
        "hf://someone/empty": f"no run of rlmin, expected {POLICY} in it, found nothing",
        "hf://someone/other": f"no run of rlmin, expected {POLICY} in it, found README.md, config.json",
        "hf://someone/pickled": r"ppo-CartPole-v1\.zip is a pickle or may hold one.*rlmin reads none",
        "hf://someone/foreign": "expected checkpoint format 1, got None; another version of rlmin wrote it",
        "hf://someone/nothing": "hf://someone/nothing: not found on the hub, or not yours to see",
        "hf://someone/other@nope": "hf://someone/other@nope: not found on the hub",
        "hf://a-run": "expected hf://USER/NAME or hf://USER/NAME@REVISION",
    }.items():
        with pytest.raises(ValueError, match=message):
            rlmin.load(place)
    assert rlmin.load("hf://someone/beside").num_timesteps == 80
    assert not list(Path(constants.HF_HUB_CACHE).rglob("*.pkl")), "a pickle is not even fetched"


def foreign() -> bytes:
    from safetensors.torch import save

    return save({"weight": torch.zeros(2)})


@pytest.mark.slow
def test_in_a_fresh_process_without_a_network_the_error_is_one_line(tmp_path: Path) -> None:
    root = str(Path(__file__).parent.parent)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PYTHONPATH": root}
    command = [sys.executable, "-c", "from rlmin.cli import main; main()", "evaluate", "hf://someone/nothing"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("rlmin: hf://someone/nothing: not reached, and not brought here before")


def test_what_cannot_be_pushed_is_said(hub: Hub, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / LEARNER).unlink()
    bad = {
        ("push", "nowhere", REPO): "nowhere: no such run folder",
        ("push", str(run), "not an id"): "not an id",
        ("push", str(run), REPO, "--with-learner"): f"has no {LEARNER} to push",
        ("card", "nowhere"): "nowhere: no such run folder",
        ("cart",): "no hub command 'cart'; did you mean 'card'?",
    }
    for arguments, message in bad.items():
        with pytest.raises(SystemExit) as ended:
            main(["hub", *arguments])
        assert ended.value.code == 2 and message in capsys.readouterr().err, arguments
    assert hub.repos == {}


def test_what_is_pushed_is_the_last_save_whatever_else_lies_there(hub: Hub, run: Path) -> None:
    early = {name: (run / name).read_bytes() for name in (CONFIG, POLICY)}
    main(["train", "--resume", str(run), "--total-timesteps", "120"])
    agent = rlmin.load(run)
    (run / POLICY).write_bytes(early[POLICY])  # as a kill in the middle of a save leaves it
    (run / CONFIG).write_text("gamma: 2")
    with pytest.warns(UserWarning, match=r"edited after training \(gamma: 2\)"):
        push_to_hub(run, REPO)
    assert hub.repos[REPO][0][CONFIG] == early[CONFIG] and hub.repos[REPO][0][POLICY] != early[POLICY]
    assert rlmin.load(f"hf://{REPO}").num_timesteps == 120 and acts_alike(rlmin.load(f"hf://{REPO}"), agent)


def test_what_the_how_to_tells_a_reader_to_type_runs(hub: Hub) -> None:
    page = (Path(__file__).parent.parent / "docs" / "howto" / "hub.md").read_text()
    (change,) = re.findall(r"^<!-- test: (.*?) -> (.*?) -->$", page, re.MULTILINE)
    seen: dict[str, Any] = {}
    for kind, block in re.findall(r"^```(\w+)\n(.*?)^```$", page.replace(*change), re.MULTILINE | re.DOTALL):
        if kind in ("python", "py"):
            exec(block, seen)
        for command in re.findall(r"^\$ rlmin (.*)$", block, re.MULTILINE):
            main(command.split())
    assert [LEARNER in files for files in hub.repos["someone/maze"]] == [False, True]
    assert seen["agent"].num_timesteps > 0


def test_without_the_package_the_extra_is_named(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for function in (lambda: push_to_hub(run, REPO), lambda: rlmin.load(f"hf://{REPO}")):
        with pytest.raises(ImportError, match=r'pip install "rlmin\[hub\]"'):
            function()
