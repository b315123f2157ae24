"""What we ask of servers, and what others may ask of ours."""
