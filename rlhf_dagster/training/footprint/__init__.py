"""Estimates of the memory that the parts of a training need, in bytes, from a model's sizes and settings alone.

The file ``memory.py`` beside each training adds up that training's parts, without torch, before the training starts.
What a layer keeps was counted in the graphs that PyTorch makes for models of several architectures
(`tests/training/test_footprint.py` counts them again); `benchmarks/memory.py` compares whole trainings.
"""
