"""The loops of a team."""
