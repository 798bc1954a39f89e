"""Programs: what the recorder writes into an instruction is what a kernel reads from the table, by the same names."""

from __future__ import annotations

from itertools import count
from typing import Any, get_type_hints

import numpy as np
import pytest

from minigen.backends.cpu.instructions import FIELDS, Prompt, Storage, as_program, as_table


def numbered(description: Any, numbers: Any) -> Any:
    """An instruction whose fields are all different."""
    fields = {}
    for name, kind in get_type_hints(description).items():
        fields[name] = numbered(kind, numbers) if kind is Storage else kind(next(numbers))
    return description(**fields)


def assert_reads_as(record: Any, instruction: Any) -> None:
    assert record.dtype.names == instruction._fields
    for name, value in instruction._asdict().items():
        if isinstance(value, Storage):
            assert_reads_as(record[name], value)
        else:
            assert record[name] == value


@pytest.mark.parametrize("description", FIELDS)
def test_a_row_of_a_program_has_the_fields_of_its_instruction(description: Any) -> None:
    operation, name = FIELDS[description]
    first, second = (numbered(description, count(start)) for start in (2, 100))
    program = as_program([first, second])
    assert program["operation"].tolist() == [operation] * 2
    assert_reads_as(program[0][name], first)
    assert_reads_as(program[1][name], second)


def test_operations_have_different_numbers_and_names() -> None:
    numbers, names = zip(*FIELDS.values(), strict=True)
    assert sorted(numbers) == list(range(len(FIELDS)))
    assert len(set(names)) == len(FIELDS)
    assert as_program([]).shape == (0,)


def test_a_table_of_one_record() -> None:
    prompt = numbered(Prompt, count(2))
    table = as_table(prompt)
    assert table.shape == (1,)
    assert_reads_as(table[0], prompt)
    address = 2**47 + 1  # of memory: 32 bits, or a float, would lose some of it
    assert as_table(Storage(0, address))["numbers"].tolist() == [address]
    assert as_table(prompt)["scale"].dtype == np.float32
