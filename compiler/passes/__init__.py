"""Graph passes, one pure function per file."""
