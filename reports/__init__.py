"""Area, energy and sweeps."""
