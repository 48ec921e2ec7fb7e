"""Everything that runs a program: golden model, instruction-set simulator, RTL."""
