"""What is on record of a Label Studio server."""
