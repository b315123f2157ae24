"""Figures about models and policies, and the rules that judge them: numbers in, numbers out."""
