"""Verilator builds of the emitted Verilog and the harness that runs them."""
