"""The labelling page of each kind of comparison, one file each: what it shows and asks, and what the answers say."""
