"""Faults of the program, of the bus, and resets in the middle of a run: always a report, and then a good run."""

from functools import cache

import numpy as np
import pytest

from phonolith.compiler.pipeline import generate
from phonolith.hw import isa, registers
from phonolith.hw.config import MachineConfig
from phonolith.hw.quiesce import Error
from phonolith.sim.bench import weight_product
from phonolith.sim.rtl.run import START, BusFault, Response, RtlMachine, RunResult
from tests.rtl.programs import OUTPUT, PROGRAM, A, Case, instruction, load, tile_case

CONFIG = MachineConfig().with_array("8x8")
IMAGE_BYTES = 1 << 14
OUTSIDE = IMAGE_BYTES + 0x1000
SEMAPHORES = (1 << isa.SEMAPHORE_BITS) - 1


@cache
def machine() -> RtlMachine:
    return RtlMachine(CONFIG)


def outcome(result: RunResult) -> tuple:
    return result.image.tobytes(), result.cycles, result.counters, result.engines


@cache
def tile() -> Case:
    return tile_case(CONFIG)


@cache
def fresh() -> tuple:
    """What the tile gives on a machine that has run nothing before."""
    case = tile()
    result = RtlMachine(CONFIG).run(case.image, case.program, case.arguments)
    assert result.done and np.array_equal(result.image, case.expected)
    return outcome(result)


def check_recovery() -> None:
    """The tile now gives what it gives on a fresh machine, to the bit and the cycle."""
    assert outcome(machine().run(tile().image, tile().program, tile().arguments)) == fresh()


def run_words(words: list[int], **options) -> RunResult:
    image = np.random.default_rng(3).integers(0, 256, IMAGE_BYTES, dtype=np.uint8)
    program = np.array([CONFIG.hash_word, *words], "<u4").view(np.uint8)
    image[PROGRAM:PROGRAM + program.size] = program
    return machine().run(image, PROGRAM, quiet_cycles=1_200_000, **options)


def check_words(words: list[int], code: Error, address: int, **options) -> RunResult:
    """The program stops with this error at this word, and the machine works afterwards."""
    result = run_words(words, **options)
    assert (Error(result.error_code), result.error_address, result.done) == (code, address, False)
    check_recovery()
    return result


def store(address: int, **operands: int) -> list[int]:
    return instruction("STORE", address=address, **{"outer_count": 1, "inner_count": 1, "row_bytes": 8, **operands})


def check_bus_fault(case: Case, fault: BusFault, stalls: int | None = None) -> bool:
    """A fault ends in an error, or it met a read ahead that nobody needed; return whether it was an error."""
    result = machine().run(case.image, case.program, case.arguments, faults=(fault,), stalls_seed=stalls)
    if result.done:
        assert np.array_equal(result.image, case.expected)
    else:
        mnemonic = header_words(case)[result.error_address]
        assert result.error_code == {"read": Error.READ_FAILED, "write": Error.WRITE_FAILED}[fault.channel]
        assert fault.channel == "read" or mnemonic == "STORE"
    check_recovery()
    return not result.done


@cache
def product() -> Case:
    """A compiled matrix product: hundreds of transactions."""
    generator = np.random.default_rng(5)
    a, b = (generator.integers(-128, 128, shape).astype(np.int8) for shape in ((50, 100), (100, 70)))
    program = generate(weight_product(b), {"a": a.shape, "y": (50, 70)}, CONFIG)
    image = program.with_program(program.image({"a": a}))
    result = RtlMachine(CONFIG).run(image, program.program_address)
    assert result.done
    return Case(image, program.program_address, (), result.image)


def header_words(case: Case) -> dict[int, str]:
    """Mnemonic of every instruction of a program without holes, by word index; 0 is the hash."""
    words = case.image[case.program:].view(np.uint8)[:1 << 16]
    words = words[:words.size // 4 * 4].copy().view("<u4")
    found, index = {0: "hash"}, 1
    while True:
        definition = isa.BY_OPCODE[isa.unpack(isa.HEADER, int(words[index]))["opcode"]]
        found[index] = definition.mnemonic
        if definition.mnemonic == "END":
            return found
        index += 1 + len(definition.operands)


@pytest.mark.parametrize("response", [Response.SLVERR, Response.DECERR])
@pytest.mark.parametrize("channel", ["read", "write"])
def test_every_early_transaction_may_fail(channel, response):
    failed = [check_bus_fault(tile(), BusFault(channel, index, response, beat=index % 3)) for index in range(40)]
    assert sum(failed) >= 8


@pytest.mark.parametrize("seed", range(12))
def test_later_transactions_may_fail(seed):
    generator = np.random.default_rng(seed)
    channel = ("read", "write")[seed % 2]
    index = int(generator.integers(0, 300 if channel == "read" else 40))
    fault = BusFault(channel, index, Response.DECERR, beat=int(generator.integers(0, 64)))
    check_bus_fault(product(), fault, None if seed < 6 else seed)


@pytest.mark.parametrize("stalls", [None, *range(6)])
@pytest.mark.parametrize("wrong", [0, 3, 7])
def test_a_failed_load_names_its_instruction(wrong, stalls):
    each = [load(isa.Target.SCRATCHPAD, address=A + 16 * n, segment_bytes=200, base=n) for n in range(8)]
    each[2] = load(isa.Target.SCRATCHPAD, address=A, segment_bytes=0)
    each[wrong] = load(isa.Target.SCRATCHPAD, address=OUTSIDE, segment_bytes=40)
    words = [word for one in each for word in one]
    check_words([*words, *instruction("END")], Error.READ_FAILED, 1 + wrong * len(each[0]), stalls_seed=stalls)


@pytest.mark.parametrize("stalls", [None, *range(6)])
@pytest.mark.parametrize("wrong", [0, 3, 7])
def test_a_failed_store_names_its_instruction(wrong, stalls):
    each = [store(OUTPUT + 64 * n, inner_count=3, inner_stride=9) for n in range(8)]
    each[2] = store(OUTPUT, row_bytes=0)
    each[wrong] = store(OUTSIDE, inner_count=2, inner_stride=-OUTSIDE + OUTPUT)
    words = [word for one in each for word in one]
    check_words([*words, *instruction("END")], Error.WRITE_FAILED, 1 + wrong * len(each[0]), stalls_seed=stalls)


@pytest.mark.parametrize("wrong", [9, 21, 38, 77, 130, 199])
@pytest.mark.parametrize("engine", ["load", "store"])
def test_a_failed_instruction_is_named_among_many(engine, wrong):
    def transfer(address: int) -> list[int]:
        return store(address) if engine == "store" else load(
            isa.Target.SCRATCHPAD, address=address, segment_bytes=8, base=7)

    each = [transfer(OUTSIDE if n == wrong else OUTPUT + 8 * n) for n in range(200)]
    words = [word for one in each for word in one]
    error = Error.WRITE_FAILED if engine == "store" else Error.READ_FAILED
    check_words([*words, *instruction("END")], error, 1 + wrong * len(each[0]))


def test_a_program_that_runs_out_of_memory_names_its_last_instruction():
    image = np.zeros(IMAGE_BYTES, np.uint8)
    words = [CONFIG.hash_word, *instruction("ROWOP"), *instruction("ROWOP")[:3]]
    image[-4 * len(words):] = np.array(words, "<u4").view(np.uint8)
    result = machine().run(image, IMAGE_BYTES - 4 * len(words))
    assert (result.error_code, result.error_address) == (Error.READ_FAILED, 6)
    check_recovery()


def test_illegal_instructions():
    rowop, end = instruction("ROWOP"), instruction("END")
    vector = len(instruction("VECTOR"))
    cases = [([63], 1), ([*rowop, 63], 6), ([*rowop, 9, *end], 6)]
    cases += [([*instruction("SHIFT", amount=amount), *end], 1) for amount in (32, -32)]
    cases += [([*load(target, address=A, segment_bytes=4), *end], 1) for target in range(5, 8)]
    cases += [([*rowop, *instruction("MATMUL", rows=1, columns=1, k=k), *end], 6) for k in (0, -1, 1 << 20)]
    blocks = [isa.pack(isa.MATMUL_CONTROL, block=block) for block in range(len(isa.BLOCKS), 8)]
    cases += [([*instruction("MATMUL", control=block, rows=1, columns=1, k=8), *end], 1) for block in blocks]
    for field, value in {"source": 3, "source_width": 3, "multiplier": 6, "destination": 3}.items():
        low, _ = isa.VECTOR_CONTROL[field]
        cases.append(([*instruction("VECTOR", control=isa.pack(isa.VECTOR_CONTROL, source=2)),
                       *instruction("VECTOR", control=value << low), *end], 1 + vector))
    for words, address in cases:
        check_words(words, Error.ILLEGAL_INSTRUCTION, address)


def set_register(number: int, value: int) -> list[int]:
    return [*instruction("SET", destination=isa.encode_value(0, number))[:2], value]


@pytest.mark.parametrize("mnemonic", ["BRANCH_EQUAL", "BRANCH_LESS"])
@pytest.mark.parametrize("same", [False, True])
def test_an_error_behind_a_branch(mnemonic, same):
    """Taken or not, whichever bit decides: the word named is the one that was decoded."""
    five, six = isa.encode_value(0, 5), isa.encode_value(0, 6)
    for bit in range(32):
        left = int(np.random.default_rng(bit).integers(1 << 32))
        right = left if same else left ^ 1 << bit
        start = [*set_register(5, left), *set_register(6, right)]
        target = 1 + len(start) + 4 + 3
        signed = [value - (value >> 31 << 32) for value in (left, right)]
        taken = signed[0] < signed[1] if mnemonic == "BRANCH_LESS" else same
        words = [*start, *instruction(mnemonic, a=five, b=six, target=target), 63, 63, 63, 63]
        check_words(words, Error.ILLEGAL_INSTRUCTION, target if taken else target - 3)


def test_a_program_for_another_machine():
    image = tile().image.copy()
    image[tile().program] ^= 1
    result = machine().run(image, tile().program, tile().arguments)
    assert (result.error_code, result.error_address) == (Error.WRONG_CONFIGURATION, 0)
    check_recovery()


@pytest.mark.parametrize("stalls", [None, 1, 2])
def test_deadlock_names_the_oldest_instruction_that_waits(stalls):
    matmul = instruction("MATMUL", wait=2, signal=4, rows=1, columns=1, k=1)
    drain = instruction("VECTOR", signal=8, rows=1, columns=1)
    blocked = store(OUTPUT, wait=8)
    empty = load(isa.Target.TABLE)
    for words, address in [
        ([*matmul, *instruction("END")], 1),
        ([*empty, *matmul, *drain, *blocked, *empty * 3, *instruction("END")], 1 + len(empty)),
        ([*store(OUTPUT), *blocked, *matmul * 40, *instruction("END")], 1 + len(blocked)),
        ([*drain, *instruction("END")], 1),
        ([*empty, *instruction("MATMUL", rows=2 * CONFIG.rows, columns=1, k=1), *instruction("END")], 1 + len(empty)),
    ]:
        result = check_words(words, Error.DEADLOCK, address, stalls_seed=stalls)
        assert stalls is not None or result.cycles < 3000


def test_a_tile_that_nobody_takes():
    matmul = instruction("MATMUL", rows=1, columns=1, k=1)
    check_words([*matmul, *instruction("END")], Error.TILE_NOT_TAKEN, 1 + len(matmul))


EMPTY = {
    "LOAD": lambda **masks: load(isa.Target.TABLE, **masks),
    "MATMUL": lambda **masks: instruction("MATMUL", k=1, **masks),
    "VECTOR": lambda **masks: instruction("VECTOR", **masks),
    "STORE": lambda **masks: store(OUTPUT, row_bytes=0, **masks),
}


@pytest.mark.parametrize("semaphore", range(12))
@pytest.mark.parametrize("engine", EMPTY)
def test_semaphores_stay_in_their_range(engine, semaphore):
    empty = EMPTY[engine](signal=1 << semaphore)
    fill = [*instruction("SET", destination=isa.encode_value(0, 5), literal=0), *empty,
            *instruction("ADD", destination=isa.encode_value(0, 5), a=isa.encode_value(0, 5), b=1),
            *instruction("BRANCH_LESS", a=isa.encode_value(0, 5), b=isa.encode_value(SEMAPHORES, 1), target=4)]
    assert run_words([*fill, *instruction("END")]).done
    check_words([*fill, *empty, *instruction("END")], Error.SEMAPHORE_RANGE, 1 + len(fill))


@pytest.mark.parametrize("before", [0, 15, 16, 40, 100])
def test_the_taker_is_named_among_many(before):
    """LOAD and MATMUL wait for the token that VECTOR gives when both have nothing else to do."""
    empty = load(isa.Target.TABLE)
    waiting = [*load(isa.Target.TABLE, wait=1), *instruction("MATMUL", wait=1, k=1)]
    slow = instruction("VECTOR", signal=1, rows=400, columns=8,
                       control=isa.pack(isa.VECTOR_CONTROL, source=isa.Source.ZERO))
    words = [*empty * before, *waiting, *slow, *instruction("END")]
    check_words(words, Error.SEMAPHORE_RANGE, 1 + before * len(empty))


@pytest.mark.parametrize("semaphore", range(12))
def test_two_engines_that_wait_for_one_token(semaphore):
    mask = 1 << semaphore
    waiting = [*instruction("MATMUL", wait=mask, k=1), *instruction("ROWOP", wait=mask)]
    signal = load(isa.Target.SCRATCHPAD, signal=mask, address=A, segment_bytes=200)
    check_words([*waiting, *signal, *instruction("END")], Error.SEMAPHORE_RANGE, 1)


@pytest.mark.parametrize("seed", range(3))
def test_reset_in_the_middle_of_a_run(seed):
    generator = np.random.default_rng(seed)
    for cycles in generator.integers(1, fresh()[1], 25):
        machine().interrupt(tile().image, tile().program, tile().arguments, cycles=int(cycles),
                            stalls_seed=seed or None)
        check_recovery()
    for cycles in generator.integers(1, 6000, 8):
        machine().interrupt(product().image, product().program, cycles=int(cycles))
        check_recovery()


@pytest.mark.parametrize("latency", [1, 200])
def test_a_second_run_does_not_meet_what_the_first_read_ahead(latency):
    rtl = RtlMachine(MachineConfig.load(array="8x8", dram_latency=latency))
    first, *others = [outcome(rtl.run(tile().image, tile().program, tile().arguments)) for _ in range(4)]
    assert others == [first] * 3


@pytest.mark.parametrize(("channel", "index"), [("read", 4), ("write", 2)])
def test_a_transaction_without_answer(channel, index):
    rtl = RtlMachine(CONFIG)
    result = rtl.run(tile().image, tile().program, tile().arguments, faults=(BusFault(channel, index, Response.NONE),))
    assert result.error_code == Error.BUS_TIMEOUT
    assert (1 << 20) < result.cycles < (1 << 20) + 2000
    assert header_words(tile())[result.error_address] == {"read": "LOAD", "write": "STORE"}[channel]
    harness = rtl._harness
    harness.write(registers.CONTROL, START)
    assert rtl.read_register(registers.STATUS) >> 8 == Error.BUS_TIMEOUT
    assert outcome(rtl.run(tile().image, tile().program, tile().arguments)) == fresh()


def test_first_fault_wins():
    one, other = 1, 2
    failing_store = store(OUTSIDE, control=1, signal=one, wait=other)
    failing_load = load(isa.Target.SCRATCHPAD, address=OUTSIDE, segment_bytes=40)
    waiting_load = instruction("LOAD", wait=one, address=OUTSIDE, **{
        name: 1 for name in ("outer_count", "inner_count", "segment_count", "segment_bytes")})
    release = load(isa.Target.TABLE, signal=other)
    check_words([*release, *failing_store, *waiting_load, 63], Error.ILLEGAL_INSTRUCTION,
                1 + len(release) + len(failing_store) + len(waiting_load))
    check_words([*release, *failing_store, *waiting_load, *instruction("END")], Error.WRITE_FAILED, 1 + len(release))
    check_words([*failing_load, *failing_store, *release, *instruction("END")], Error.READ_FAILED, 1)


def test_a_read_ahead_that_nobody_needs_may_fail():
    assert not check_bus_fault(tile(), BusFault("read", 39))
