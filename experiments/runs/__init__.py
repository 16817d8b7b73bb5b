"""Runs: their plans, directories, features and trained heads."""
