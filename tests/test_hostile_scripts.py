"""What people who come from elsewhere type: it works, or one line says what to do."""

from pathlib import Path

import pytest

from rlmin.cli import main

SMALL = "n_steps=8, batch_size=8, n_epochs=1, policy_kwargs=dict(lstm_hidden_size=8)"
ENV = """
import gymnasium as gym, numpy as np
from rlmin import PPO
class Mine(gym.Env):
    observation_space, action_space = gym.spaces.Box(-1, 1, (2,)), gym.spaces.Discrete(2)
    def reset(self, **options): return {reset}
    def step(self, action): return {step}
PPO(Mine(), width=8, layers=1, horizon=8).learn(8)
"""
SEEN = "np.zeros(2, np.float32)"

SCRIPTS: dict[str, tuple[str, str | None]] = {
    "a float of steps": (f'PPO("MlpLstmPolicy", "CartPole-v1", {SMALL}).learn(total_timesteps=1e1)', None),
    "steps as text": (f'PPO("MlpPolicy", "CartPole-v1", {SMALL}).learn("1e5")', "expected a whole number"),
    "a policy of another library": ('PPO("LstmPolicy", "CartPole-v1")', "expected one of MlpLstmPolicy"),
    "state-dependent noise": ('PPO("MlpPolicy", "Pendulum-v1", use_sde=True)', "`use_sde` has no setting here"),
    "a typo in an id": ('PPO("CartPol-v1")', "did you mean 'CartPole-v1'?"),
    "nothing for an env": ('PPO("MlpLstmPolicy", None)', "env is missing; expected an id or an environment"),
    "a class for an env": ("import gymnasium as gym; PPO(gym.Env)", "got the class Env; make one, Env()"),
    "a rate as text": ('PPO("MlpPolicy", "CartPole-v1", learning_rate="linear")', "lr: expected a number above 0"),
    "a batch that does not divide": (
        'PPO("MlpPolicy", "CartPole-v1", n_steps=100, batch_size=64)',
        "set `minibatches` and `bptt` instead",
    ),
    "no such run": ('PPO.load("logs/best_model")', "no such run folder"),
    "a zip of stable-baselines3": (
        'import zipfile; zipfile.ZipFile("model.zip", "w").writestr("data", "{}"); PPO.load("model")',
        "holds pickles, which rlmin does not read",
    ),
    "a wrong observation": ('PPO("CartPole-v1", width=8).predict([0.0] * 5)', "the space declares"),
    "an observation of NaN": ('PPO("CartPole-v1", width=8).predict([float("nan")] * 4)', "holds NaN or infinity"),
    "the old form of gym": (
        ENV.format(reset=SEEN, step=f"{SEEN}, 0.0, False, {{}}"),
        "a step returns (observation, reward, terminated, truncated, info), a reset (observation, info)",
    ),
    "rewards of NaN": (
        ENV.format(reset=f"({SEEN}, {{}})", step=f'{SEEN}, float("nan"), False, False, {{}}'),
        "reward: NaN or inf from environment 0",
    ),
    "a pickle of data": (
        'import pathlib; pathlib.Path("d.pkl").write_bytes(b"a pickle"); DecisionAgent("d.pkl")',
        "rlmin.data.episodes_from_trajectories",
    ),
    "a dict of arrays": ('DecisionAgent({"obs": [0], "acts": [0]})', "rlmin.data.episodes_from_columns"),
    "a negative bonus": ('PPO("CartPole-v1", ent_coef=-1)', "entropy: expected a number of at least 0, got -1"),
    "another task": ('PPO("CartPole-v1", width=8).set_env("Pendulum-v1")', "the environment has Box"),
    "a policy that nobody trained": ('load("zoo:nothing")', "no policy of the zoo 'nothing'; known: cartpole"),
    "its name elsewhere": ("from rlmin import RecurrentPPO", "write rlmin.PPO, which has a memory"),
    "an algorithm that is not there": ("from rlmin import SAC", "its algorithms are PPO and, on logged data"),
    "capitals": ('PPO("CartPole-v1", encoder="GRU")', "did you mean 'gru'?"),
    "a name of the paper": ('PPO("CartPole-v1", encoder="minLSTM")', "did you mean 'min_lstm'?"),
    "a size of torch": ('PPO("CartPole-v1", hidden_size=64)', "`hidden_size` is `width` here"),
    "a name of CleanRL": ('PPO("CartPole-v1", num_steps=64)', "`num_steps` is `horizon` here"),
    "a list of envs": ('import gymnasium as gym; PPO([gym.make("CartPole-v1")])', "are one DummyVecEnv"),
    "a function for an env": ('import gymnasium as gym; PPO(lambda: gym.make("CartPole-v1"))', "are one DummyVecEnv"),
    "another library's verb": ('PPO("CartPole-v1", width=8).fit(100)', "`agent.learn(total_timesteps)` trains it"),
    "a data set of another class": (
        "class MDPDataset: episodes = []\nDecisionAgent(MDPDataset())",
        "rlmin.data.episodes_from_trajectories, _buffer or _table makes episodes",
    ),
    "a device that is not here": ('PPO("CartPole-v1", device="cuda:9")', "expected a device that is here"),
    "a tensor to predict on": ('import torch; PPO("CartPole-v1", width=8).predict(torch.zeros(4))', None),
    "callbacks as functions": (
        f'PPO("MlpLstmPolicy", "CartPole-v1", {SMALL}).learn(8, callback=[lambda l, g: True])',
        None,
    ),
    "keys that are no names": ('PPO("CartPole-v1", env_kwargs={1: 2})', "env_kwargs: expected names as keys, got 1"),
    "nothing to see": (
        "import gymnasium as gym\nclass Mine(gym.Env):\n    observation_space = gym.spaces.Box(-1, 1, (0,))\n"
        "    action_space = gym.spaces.Discrete(2)\nPPO(Mine())",
        "holds no number; an agent that sees nothing needs a constant one",
    ),
    "bytes for a file": ('import io; PPO("CartPole-v1", width=8).save(io.BytesIO())', "folder: expected a path"),
    "a name of another system": ('load("runs/\\udcff")', "folder: expected a name in UTF-8"),
    "what a reset returns": (
        'import gymnasium as gym; PPO("CartPole-v1", width=8).predict(gym.make("CartPole-v1").reset())',
        "got (observation, info), as env.reset() returns it; give the first alone",
    ),
    "steps for the constructor": ('PPO("CartPole-v1", total_timesteps=9)', "`agent.learn(total_timesteps)` takes it"),
    "a window": ('PPO("CartPole-v1", render_mode="human")', "an argument of the environment, in `env_kwargs`"),
    "CleanRL's schedule": ('PPO("CartPole-v1", anneal_lr=True)', "`anneal_lr` is `lr_final` here"),
    "the zoo's normalisation": ('PPO("CartPole-v1", normalize=True)', "`normalize_observation` and `normalize_return`"),
    "another decision agent": ("from rlmin import DecisionTransformer", "write rlmin.DecisionAgent"),
    "a helper of theirs": ("from rlmin import evaluate_policy", "stable_baselines3.common.evaluation"),
    "an evaluation": ('PPO("CartPole-v1", width=8).evaluate()', "`rlmin evaluate RUN`"),
    "text for actions": (
        "import gymnasium as gym\nclass Mine(gym.Env):\n    observation_space = gym.spaces.Box(-1, 1, (2,))\n"
        "    action_space = gym.spaces.Text(3)\nPPO(Mine())",
        "expected Discrete, MultiDiscrete, MultiBinary or Box",
    ),
}

COMMANDS = {
    "train --algo ppo --env CartPole-v1 -n 100": "did you mean '--algorithm'?",
    "train --env CartPole-v1 --env-kwargs length:50": "expected key=value, got 'length:50'; write length=50",
    "train CartPole-v1": "an environment is given by its option: --env CartPole-v1",
    "train --preset tmaze": "it is the first word, as in `rlmin train tmaze`",
    "evaluate --model runs/x": "it is the first word, as in `rlmin evaluate runs/tmaze-0`",
    "train cartpole --hidden-size 3": "`hidden_size` is `width` here",
    "train cartpole total_timesteps=1000": "got 'total_timesteps=1000'; write --total-timesteps 1000",
    "train cartpole --lr 1e-3 1e-4": "lr: expected a number above 0, got '1e-3 1e-4'",
    "train --env Cartpole-v1": "did you mean 'CartPole-v1'?",
    "new environment lamp": "'environment' for argument 'kind'. Expected one of ('env', 'encoder')",
    "bench speed": "no benchmark 'speed'",
    "list models": "no list of 'models'",
    "train --env CartPole-v1 --learning-rate fast": "lr: expected a number above 0, got 'fast'",
    "plot": "runs is missing",
    "convert": "source is missing",
    "convert d.pkl --to aa/bb": "is a pickle",
    "evaluate runs/\udcff": "command line: expected a name in UTF-8, got 'runs/\\udcff'; rename the file or folder",
    "evaluate runs/none": "runs/none: no such run folder",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_it_works_or_one_line_says_what_to_do(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, words = SCRIPTS[name]
    message = ""
    try:
        exec(f"from rlmin import PPO, DecisionAgent, load\n{code}", {"__name__": "__main__"})
    except Exception as error:
        message = str(error)
    assert (words is None and not message) or (words and words in message and "\n" not in message), message


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_answers_in_one_line(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(command.split())
    said = capsys.readouterr().err.strip()
    assert ended.value.code == 2 and COMMANDS[command] in said and len(said.splitlines()) == 1
