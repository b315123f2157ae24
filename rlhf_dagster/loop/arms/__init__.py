"""The arms of a round side by side: the choice of the policy that is judged, and what is measured beside it."""
