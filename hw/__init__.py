"""The accelerator in Amaranth, its configuration and its instruction set."""
