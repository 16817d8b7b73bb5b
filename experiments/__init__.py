"""One script per experiment; only here are command-line options, paths and plots."""
