"""Training as a process of its own: started, watched, ended with all that it started, and measured."""
