"""Where the base model comes from: the Hub, a folder, or a tiny one pretrained on the spot."""
