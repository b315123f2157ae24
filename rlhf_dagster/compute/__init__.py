"""Trainings in processes of their own: started, watched, ended with all that they started, and measured."""
