"""Measuring a policy: win rates, KL, diversity, reward-model accuracy, the promotion gate and the report page."""
