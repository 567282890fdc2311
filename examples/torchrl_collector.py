"""A policy of rlmin trained by TorchRL: its collector, its PPO loss, rlmin's memory in one pass over each batch.

python examples/torchrl_collector.py --steps 100000
"""

import argparse

import gymnasium as gym
import torch
from torchrl.collectors import Collector
from torchrl.envs import Compose, GymEnv, InitTracker, SerialEnv, TransformedEnv
from torchrl.modules import set_recurrent_mode
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

import rlmin
from rlmin.interop.torchrl import PolicyModule

ID, B, T, EPOCHS = "CartPole-v1", 8, 128, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000)
    steps = parser.parse_args().steps

    torch.manual_seed(0)
    one = gym.make(ID)
    module = PolicyModule(rlmin.Policy(one.observation_space, one.action_space, rlmin.PolicyConfig(width=64)))
    transforms = Compose(InitTracker(), module.make_tensordict_primer())
    env = TransformedEnv(SerialEnv(B, lambda: GymEnv(ID)), transforms)
    actor, critic = module.actor(env.action_spec), module.critic()
    loss_of = ClipPPOLoss(actor, critic, normalize_advantage=True)
    advantage = GAE(gamma=0.99, lmbda=0.95, value_network=None)
    optimizer = torch.optim.Adam(loss_of.parameters(), lr=1e-3)

    horizon = min(T, max(steps // B, 2))
    collector = Collector(env, actor, frames_per_batch=B * horizon, total_frames=max(steps, B * horizon))
    for batch in collector:
        with torch.no_grad():  # of the states reached, each with the memory the policy then had
            batch["next", "state_value"] = critic(batch["next"].select(*critic.in_keys))["state_value"]
        advantage(batch)
        for _ in range(EPOCHS):
            with set_recurrent_mode(True):
                found = loss_of(batch)
            optimizer.zero_grad()
            (found["loss_objective"] + found["loss_critic"] + found["loss_entropy"]).backward()
            torch.nn.utils.clip_grad_norm_(loss_of.parameters(), 0.5)
            optimizer.step()
        print(f"steps an episode: {batch.numel() / max(int(batch['next', 'done'].sum()), 1):.1f}")
    collector.shutdown()


if __name__ == "__main__":
    main()
