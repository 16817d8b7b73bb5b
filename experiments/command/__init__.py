"""What a script is before it starts: its command line, options, processes and cores."""
