"""What an asset calls: one plain function for each step of the loop, without Dagster."""
