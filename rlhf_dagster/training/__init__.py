"""The trainings: SFT, reward model, PPO and DPO, each a function from a spec to a checkpoint."""
