"""Direct preference optimisation, and the losses related to it."""
