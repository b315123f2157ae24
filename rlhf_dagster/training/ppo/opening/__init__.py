"""From a PPO spec to everything that a run begins with."""
