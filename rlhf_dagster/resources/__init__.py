"""What assets are given by Dagster: compute, io managers, the label store, the notifier."""
