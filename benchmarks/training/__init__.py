"""Speed and memory of the trainings against peers, both sides in the same run on the same weights and data.

``python -m benchmarks.training`` (``make bench``). Peers get environments of their own and are used through their
public interfaces alone; the package imports nothing of this folder.
"""
