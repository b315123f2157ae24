"""What is tried with each model. A cell returns where numbers are right, and raises where they are not."""
