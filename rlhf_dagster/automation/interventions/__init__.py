"""What a person does to a loop besides labelling, as jobs with a launchpad; the commands do the same."""
