"""The golden model: the executable definition of every operator of the integer graph."""
