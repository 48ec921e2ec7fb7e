"""What a traced build shows the harness in every cycle: which signals, for Verilator and for C++."""

from phonolith.hw.registers import CAUSES, ENGINES

VLT = "signals.vlt"
TABLE = "signals.inc"
ROOT = "harness_top__DOT__phonolith_top__DOT__"
# Bits of an event's words: an engine takes an instruction, an engine completes one; causes per engine, beats.
TAKE_BIT, GIVE_BIT = 0, len(ENGINES)
READ_BIT = len(CAUSES) * len(ENGINES)
WRITE_BIT = READ_BIT + 1


def signals() -> list[tuple[str, int, str, str]]:
    """Return (word, lowest bit, instance, port) of every signal: ports, whose names the components' members give."""
    listed = []
    for index in range(len(ENGINES)):
        listed += [("pulses", TAKE_BIT + index, "semaphores", f"take__{index}"),
                   ("pulses", GIVE_BIT + index, "semaphores", f"give__{index}"),
                   ("levels", len(CAUSES) * index, "registers", f"causes__{index}")]
    return listed


def visible() -> str:
    """Return Verilator's configuration that keeps the signals."""
    lines = [f'public_flat_rd -module "*{instance}" -var "{port}"' for _, _, instance, port in signals()]
    return "\n".join(["`verilator_config", *lines, ""])


def table() -> str:
    """Return one line ``SIGNAL(word, bit, member of Verilator's root)`` per signal; Verilator writes ``__`` as 05F."""
    return "".join(f"SIGNAL({word}, {bit}, {ROOT}{instance}__DOT__{port.replace('__', '___05F')})\n"
                   for word, bit, instance, port in signals())
