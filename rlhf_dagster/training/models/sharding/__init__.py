"""Models whose weights are in parts, one on each rank, by PyTorch's FSDP2: cut, made whole for a time, put together."""
