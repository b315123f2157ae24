"""Training with a part of each weight on each rank (`compute.sharding`): its tensors, and states of them on disk."""
