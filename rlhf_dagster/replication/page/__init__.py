"""What a replication came to, as one self-contained HTML page."""
