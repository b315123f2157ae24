"""Settings of the arms that a round may have beside PPO and DPO, and of which of them may be promoted."""
