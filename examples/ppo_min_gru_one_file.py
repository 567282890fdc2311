"""Recurrent PPO with minGRU in one file, to be read from top to bottom. It needs torch and gymnasium alone.

    python examples/ppo_min_gru_one_file.py --steps 200_000

The task is CartPole without velocities: the policy has to infer them from what it remembers. The network and the
update are those of rlmin's PPO with its default settings; a test compares the two on the same rollout.

Axes: T time steps, B environments, D features. A rollout is [T, B, ...], a minibatch whole environments, [:, rows].
Where start[t] says that observation[t] opens an episode, memory is wiped before it is read.
"""

import argparse
import math
from dataclasses import dataclass, fields

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Categorical

try:  # rlmin's kernel gives the same numbers sooner, where rlmin is installed
    from rlmin.scan import linear_scan
except ImportError:
    linear_scan = None


@dataclass
class Args:  # each is an option of the command line
    steps: int = 200_000  # environment steps, summed over environments
    seed: int = 0
    num_envs: int = 8  # B
    horizon: int = 128  # T
    width: int = 128  # D
    layers: int = 2
    epochs: int = 10  # passes over a rollout
    minibatches: int = 4  # gradient steps a pass
    lr: float = 1e-3  # at the start; it falls to 0
    gamma: float = 0.99
    lam: float = 0.95
    clip: float = 0.2  # distance from 1 at which the probability ratio is clipped
    ratio_penalty: float = 10.0  # weight of the penalty on steps that the clip did not hold
    value_weight: float = 0.5
    entropy: float = 0.01  # weight of the entropy bonus
    max_grad_norm: float = 0.5


def make_env() -> gym.Env:
    """CartPole that shows its two positions, and not its two velocities."""
    seen = gym.spaces.Box(-np.inf, np.inf, (2,))
    return gym.wrappers.TransformObservation(gym.make("CartPole-v1"), lambda x: x[[0, 2]], seen)


def scan(decay: Tensor, value: Tensor, state: Tensor, start: Tensor) -> Tensor:
    """h[t] = decay[t] h[t-1] + value[t], h[-1] = state [B, D], and 0 instead of h[t-1] where start[t]."""
    if linear_scan is not None:
        return linear_scan(decay, value, state, start)[0]
    decay = decay.masked_fill(start[..., None], 0)
    value = torch.cat([value[:1] + decay[:1] * state, value[1:]])
    apart = 1
    while apart < len(value):  # each round reaches twice as far back: T steps take log2(T) rounds
        value = torch.cat([value[:apart], value[apart:] + decay[apart:] * value[:-apart]])
        decay = torch.cat([decay[:apart], decay[apart:] * decay[:-apart]])
        apart *= 2
    return value


class MinGRU(nn.Module):
    """h[t] = h[t-1] + sigmoid(gate[t]) (tanh(candidate[t]) - h[t-1]); gate and candidate see x[t] only (2410.01201)."""

    def __init__(self, size: int):
        super().__init__()
        self.projection = nn.Linear(size, 2 * size)
        steps = torch.logspace(math.log10(2), math.log10(256), size)  # that each unit remembers before training
        self.projection.bias.data[:size] = -torch.log(steps - 1)

    def forward(self, x: Tensor, h: Tensor, start: Tensor) -> Tensor:
        gate, candidate = self.projection(x).chunk(2, dim=-1)
        return scan(torch.sigmoid(-gate), torch.sigmoid(gate) * torch.tanh(candidate), h, start)


class CausalConv(nn.Module):
    """Each feature mixed with its own last three values in the same episode: a gated average hardly knows when."""

    def __init__(self, size: int, width: int = 4):
        super().__init__()
        near_identity = torch.randn(width, size) * 0.1 + (torch.arange(width) == 0)[:, None]
        self.weight, self.bias = nn.Parameter(near_identity), nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor, last: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        lags = [x]
        for k in range(len(self.weight) - 1):  # lag k + 1 is lag k one step later; last is [B, 3, D], newest first
            lags.append(torch.cat([last[None, :, k], lags[k][:-1]]).masked_fill(start[..., None], 0))
        y = self.bias + sum(weight * lag for weight, lag in zip(self.weight, lags, strict=True))
        return y, torch.stack([lag[-1] for lag in lags[:-1]], dim=1)


class Block(nn.Module):
    """x + mixer(conv(norm(x))), then x + mlp(norm(x))."""

    def __init__(self, size: int, layers: int):
        super().__init__()
        self.norm, self.conv, self.mixer = nn.LayerNorm(size), CausalConv(size), MinGRU(size)
        self.mlp_norm = nn.LayerNorm(size)
        self.mlp = nn.Sequential(nn.Linear(size, 2 * size), nn.SiLU(), nn.Linear(2 * size, size))
        nn.init.orthogonal_(self.mlp[2].weight, gain=(2 * layers) ** -0.5)
        nn.init.zeros_(self.mlp[2].bias)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor], start: Tensor):
        y, last = self.conv(self.norm(x), state[0], start)
        h = self.mixer(y, state[1], start)
        x = x + h
        return x + self.mlp(self.mlp_norm(x)), (last, h[-1])


class Agent(nn.Module):
    """Observations [T, B, ...] -> logits, values and the memory after step T - 1. Acting is a sequence of one step."""

    def __init__(self, observation_size: int, actions: int, args: Args):
        super().__init__()
        self.size = size = args.width
        self.inputs = nn.Sequential(nn.Linear(observation_size, size), nn.SiLU(), nn.Linear(size, size))
        self.blocks = nn.ModuleList(Block(size, args.layers) for _ in range(args.layers))
        self.norm, self.actor, self.critic = nn.LayerNorm(size), nn.Linear(size, actions), nn.Linear(size, 1)
        nn.init.orthogonal_(self.actor.weight, 0.01)
        for x in (self.actor.bias, self.critic.weight, self.critic.bias):
            nn.init.zeros_(x)
        self.count, self.mean, self.var, self.scale = 0, 0.0, 1.0, 1.0  # of all returns: the critic's unit

    def initial_state(self, B: int):
        return [(torch.zeros(B, 3, self.size), torch.zeros(B, self.size)) for _ in self.blocks]

    def forward(self, observation: Tensor, state, start: Tensor):
        x, after = self.inputs(observation), list(state)
        for i, block in enumerate(self.blocks):
            x, after[i] = block(x, state[i], start)
        x = self.norm(x)
        return self.actor(x), self.mean + self.scale * self.critic(x).squeeze(-1), after

    @torch.no_grad()
    def rescale(self, target: Tensor) -> None:
        """Bring the critic to the unit of all targets so far, mean 0 and deviation 1; its values stay (PopArt)."""
        mean, scale, x = self.mean, self.scale, target.double()
        self.count += x.numel()
        share, delta = x.numel() / self.count, float(x.mean()) - mean
        self.mean += share * delta
        self.var = (1 - share) * (self.var + share * delta**2) + share * float(x.var(correction=0))
        self.scale = max(math.sqrt(self.var), 1e-4 * abs(self.mean)) or 1.0
        if self.critic.weight.any() or self.critic.bias.any():  # one that has learned nothing becomes the mean
            self.critic.bias.copy_((mean + scale * self.critic.bias - self.mean) / self.scale)
            self.critic.weight.mul_(scale / self.scale)


class Learner:
    """PPO's update, and what it keeps from one rollout to the next."""

    def __init__(self, agent: Agent, args: Args):
        self.agent, self.args, self.largest_reward = agent, args, 0.0
        self.optimizer = torch.optim.Adam(agent.parameters(), eps=1e-5)

    def update(self, r: dict[str, Tensor], state, done: float = 0.0) -> None:
        """Learn from a rollout that began with the memory `state`; `done` is the share of training behind."""
        args = self.args
        self.optimizer.param_groups[0]["lr"] = args.lr * (1 - done)
        r = r | dict(zip(("advantage", "target"), self.targets(r), strict=True))
        for _ in range(args.epochs):
            for rows in torch.randperm(len(r["start"][0])).chunk(args.minibatches):
                part = {name: x[:, rows] for name, x in r.items()}
                loss = self.loss(part, [(last[rows], h[rows]) for last, h in state])
                self.optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.agent.parameters(), args.max_grad_norm)
                self.optimizer.step()

    def targets(self, r: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Advantages and value targets [T, B] (GAE). A terminal state is worth 0, a truncated one its next_value."""
        args = self.args
        self.largest_reward = max(self.largest_reward, float(r["reward"].abs().max()))
        bound = self.largest_reward / (1 - args.gamma)  # no return is larger, and no value is believed to be
        value, next_value = r["value"].clamp(-bound, bound), r["next_value"].clamp(-bound, bound)
        delta = r["reward"] + args.gamma * next_value * ~r["terminated"] - value
        decay = args.gamma * args.lam * ~(r["terminated"] | r["truncated"])
        advantage, carry = torch.zeros_like(delta), torch.zeros_like(delta[0])
        for t in reversed(range(len(delta))):
            advantage[t] = carry = delta[t] + decay[t] * carry
        target = advantage + value
        self.agent.rescale(target)
        spread = max(float(advantage.std()), 0.1 * self.agent.scale)  # what is left of a solved task is noise
        return (advantage - advantage.mean()) / spread, target

    def loss(self, part: dict[str, Tensor], state) -> Tensor:
        """The clipped loss of a minibatch [T, rows]."""
        args, clip = self.args, self.args.clip
        logits, value, _ = self.agent(part["observation"], state, part["start"])
        policy = Categorical(logits=logits)
        log_ratio = policy.log_prob(part["action"]) - part["log_prob"]
        ratio, advantage = log_ratio.exp(), part["advantage"]
        gain = torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage).mean()
        excess = (log_ratio.abs() - math.log1p(clip)).clamp(min=0)  # the clip alone does not bring a step back
        error = (value - part["target"]) / self.agent.scale
        penalty = args.ratio_penalty * excess.square().mean() / 2
        return penalty - gain + args.value_weight * error.square().mean() / 2 - args.entropy * policy.entropy().mean()


@torch.no_grad()
def collect(envs, agent: Agent, observation: Tensor, state, start: Tensor, T: int):
    """T steps of B environments as a rollout [T, B], and observation, memory and start after them."""
    rows, final = [], torch.zeros(T, len(start))  # final: value of the state in which an episode was cut off
    for t in range(T):
        logits, value, state = agent(observation[None], state, start[None])
        policy = Categorical(logits=logits[0])
        action = policy.sample()
        row = {"observation": observation, "start": start, "action": action, "value": value[0]}
        row["log_prob"] = policy.log_prob(action)
        seen, reward, terminated, truncated, info = envs.step(action.numpy())
        if truncated.any():  # under the memory that the agent then had
            seen_last = np.stack([info["final_obs"][b] if truncated[b] else seen[b] for b in range(len(seen))])
            final[t] = agent(torch.as_tensor(seen_last)[None], state, torch.zeros_like(start)[None])[1][0]
        ends = {"terminated": torch.as_tensor(terminated), "truncated": torch.as_tensor(truncated)}
        rows.append(row | ends | {"reward": torch.as_tensor(reward, dtype=torch.float32)})
        observation, start = torch.as_tensor(seen), ends["terminated"] | ends["truncated"]
    r = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    _, value, _ = agent(observation[None], state, start[None])
    r["next_value"] = torch.where(r["truncated"], final, torch.cat([r["value"][1:], value]))
    return r, (observation, state, start)


def main(args: Args) -> float:
    """Train; the mean length of an episode, which is its return, over the last ten rollouts."""
    torch.manual_seed(args.seed)
    envs = gym.vector.SyncVectorEnv([make_env] * args.num_envs, autoreset_mode=gym.vector.AutoresetMode.SAME_STEP)
    agent = Agent(envs.single_observation_space.shape[0], int(envs.single_action_space.n), args)
    learner, state = Learner(agent, args), agent.initial_state(args.num_envs)
    now = torch.as_tensor(envs.reset(seed=args.seed)[0]), state, torch.ones(args.num_envs, dtype=torch.bool)
    size, ends = args.num_envs * args.horizon, []
    for step in range(0, args.steps, size):
        before = now[1]
        r, now = collect(envs, agent, *now, args.horizon)
        learner.update(r, before, step / args.steps)
        ends = [*ends[-9:], int((r["terminated"] | r["truncated"]).sum())]
        length = size * len(ends) / max(sum(ends), 1)
        print(f"{step + size:>9,} steps  mean length of an episode {length:6.1f}")
    return length


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for field in fields(Args):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=field.type, default=field.default)
    main(Args(**vars(parser.parse_args())))
