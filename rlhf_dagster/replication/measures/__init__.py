"""What finished variants of a loop show: responses to the same test prompts, preferences, labels, reward models."""
