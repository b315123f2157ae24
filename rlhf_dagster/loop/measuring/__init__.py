"""What the evaluation of a round is measured with."""
