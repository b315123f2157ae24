"""What every training needs around its steps: device, ranks, seeds, states to resume from, output."""
