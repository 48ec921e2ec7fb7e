"""The command line: arguments in, library calls, results out."""
