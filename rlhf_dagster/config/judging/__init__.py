"""Settings of what judges texts: rewards, and language models that rate or label."""
