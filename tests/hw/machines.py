"""Configurations that the DMA engines are tested with: WB = C and 2C, powers of two and not, every bus width,
beats wider than 2C bytes."""

from phonolith.hw.config import MachineConfig

MACHINES = {
    f"{array}/{bus}": MachineConfig.load(array=array, bus_bits=bus, reads_outstanding=reads, writes_outstanding=writes)
    for array, bus, reads, writes in (
        ("16x16", 128, 64, 64), ("8x8", 128, 8, 8), ("12x20", 256, 64, 64), ("4x4", 64, 1, 1), ("5x24", 128, 64, 64),
        ("4x4", 256, 64, 64), ("5x7", 128, 4, 4),
    )
}
# Enough transactions in flight to hide the latency of streams, and a beat per cycle.
STREAMING = [name for name, config in MACHINES.items()
             if config.reads_outstanding >= 8 and config.dma_bytes == config.bus_bytes]
