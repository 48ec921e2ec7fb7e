"""Reciprocals and inverse square roots of values of every magnitude, on instruction-set simulator and RTL."""

import numpy as np
import pytest

from phonolith.compiler.assembler import Emitter
from phonolith.hw.isa import RowFunction
from phonolith.sim.ladder import machine
from phonolith.sim.program_case import initial_state, simulate
from phonolith.sim.program_check import check, compare, fill_rtl
from tests.sim.test_random_programs import CONFIG, case_of


@pytest.fixture(scope="module")
def rtl():
    return machine(CONFIG)


@pytest.mark.parametrize("function", list(RowFunction))
@pytest.mark.parametrize("start", range(0, 120, 20))
def test_any_magnitude(rtl, function, start):
    """Three results for each row: of random row registers, and of the first result."""
    for seed in range(start, start + 20):
        rng = np.random.default_rng(seed)
        emit = Emitter()
        for source, destination in ((0, 1), (0, 2), (1, 3)):
            emit.rowop(function=function, source_register=source, destination_register=destination,
                       rows=CONFIG.rows + 1, epsilon=int(rng.integers(0, 1 << int(rng.integers(1, 27)))),
                       factor=(int(rng.integers(1 << 15, 1 << 16)), int(rng.integers(0, 64))))
        assert check(case_of(emit, seed), rtl) is None, seed


def telling_roots(rng: np.random.Generator, numerator: int) -> list[int]:
    """Roots r of 24 bits, one per row, at which the result tells r from r - 1."""
    found = []
    while len(found) < CONFIG.rows:
        root = int(rng.integers((1 << 23) + 1, 1 << 24))
        if (numerator << 23) // root != (numerator << 23) // (root - 1):
            found.append(root)
    return found


def close_divisors(rng: np.random.Generator, numerator: int, sign: int) -> list[int]:
    """Divisors of 32 bits, one per row, that leave almost nothing, or (sign -1) almost themselves."""
    divisors = rng.integers(1 << 31, 1 << 32, 1 << 21)
    rest = sign * (numerator << 31) % divisors
    return divisors[np.argsort(rest)[:CONFIG.rows]].tolist()


def check_rows(rtl, function: RowFunction, rows: list[int], numerator: int) -> None:
    """One ROWOP on these row registers."""
    emit = Emitter()
    emit.rowop(function=function, source_register=0, destination_register=1, rows=CONFIG.rows, factor=(numerator, 40))
    case = case_of(emit)
    state = initial_state(case, CONFIG)
    state.row_registers[0] = rows
    fill_rtl(state, rtl)
    result = rtl.run(case.memory(), case.program_address)
    assert compare(case, simulate(case, CONFIG, state=state), rtl, result) is None


@pytest.mark.parametrize("less", [0, 1])
@pytest.mark.parametrize("seed", range(12))
def test_squares_and_one_less(rtl, seed, less):
    """Every bit of the radicand and of the root's remainder counts."""
    rng = np.random.default_rng(seed)
    numerator = int(rng.integers(1 << 15, 1 << 16))
    rows = [root * root - less for root in telling_roots(rng, numerator)]
    check_rows(rtl, RowFunction.INVERSE_SQRT, rows, numerator)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("seed", range(12))
def test_quotients_that_are_almost_whole(rtl, seed, sign):
    """Every bit of the quotient's remainder counts."""
    rng = np.random.default_rng(seed)
    numerator = int(rng.integers(1 << 15, 1 << 16))
    check_rows(rtl, RowFunction.RECIPROCAL, close_divisors(rng, numerator, sign), numerator)
