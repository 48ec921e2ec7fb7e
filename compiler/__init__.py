"""From a torch module to a program: frontend, integer graph, passes, tiling, code generation."""
