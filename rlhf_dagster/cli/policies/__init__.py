"""Commands that ask the policies of a loop, and give them away."""
