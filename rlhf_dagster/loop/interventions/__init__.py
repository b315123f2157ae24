"""What a person does to a loop besides labelling: one function each, for the commands and for the jobs of the UI."""
