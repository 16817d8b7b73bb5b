"""The start of a script: its command line, options, processes and CPU settings."""
