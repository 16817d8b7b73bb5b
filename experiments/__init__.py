"""One script per experiment; the only place with options, paths and plots."""
