"""Learning: the parts that algorithms share: rollouts, returns, losses, the optimizer, schedules."""
