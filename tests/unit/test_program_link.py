"""The linker step: what it accepts, what it makes of it, and what it refuses."""

from __future__ import annotations

import random
import struct

import pytest

from decloud_trainer.errors import DecloudError
from decloud_trainer.localnet.program.link import link

PROGBITS, SYMTAB, STRTAB, RELA, NOBITS, REL = 1, 2, 3, 4, 8, 9
ALLOC, WRITE, EXEC = 2, 1, 4
LDDW = bytes.fromhex("18010000040000000000000000000000")  # r1 = <address> + 4
CALL = bytes.fromhex("85100000ffffffff")
EXIT = bytes.fromhex("9500000000000000")

Section = tuple[str, int, int, bytes]
Symbol = tuple[str, int, int, int]  # name, info, section index, value
Relocation = tuple[int, int, int]  # offset, type, symbol index

# Sections 1 and 2 of every object below; symbol 0 is the empty one.
TEXT: Section = (".text", PROGBITS, ALLOC | EXEC, LDDW + CALL + CALL + EXIT + EXIT)
RODATA: Section = (".rodata", PROGBITS, ALLOC, b"\0\0\0\0hello\0\0\0" + bytes(8))
SYMBOLS: list[Symbol] = [
    ("entrypoint", 0x12, 1, 0),
    ("", 0x03, 2, 0),
    ("sol_log_", 0x10, 0, 0),
    ("inner", 0x02, 1, 40),
]
RELOCATIONS: list[Relocation] = [(0, 1, 2), (16, 10, 3), (24, 10, 4)]


def table(strings: list[str]) -> tuple[bytes, dict[str, int]]:
    data, offsets = b"\0", {"": 0}
    for text in strings:
        offsets[text] = len(data)
        data += text.encode() + b"\0"
    return data, offsets


def an_object(
    sections: list[Section] | None = None,
    symbols: list[Symbol] | None = None,
    relocations: list[Relocation] | None = None,
    of_rodata: list[Relocation] | None = None,
    machine: int = 247,
    kind: int = 1,
) -> bytes:
    """A relocatable object as clang writes it, with as much wrong as is asked for."""
    given = [TEXT, RODATA] if sections is None else sections
    strings, names = table([symbol[0] for symbol in symbols or SYMBOLS])
    symtab = bytes(24) + b"".join(
        struct.pack("<IBBHQQ", names[name], info, 0, section, value, 0)
        for name, info, section, value in symbols or SYMBOLS
    )

    def rel(rows: list[Relocation]) -> bytes:
        return b"".join(struct.pack("<QQ", at, symbol << 32 | type_) for at, type_, symbol in rows)

    rows: list[tuple[str, int, int, bytes, int, int, int]] = [
        (*section, 0, 0, 0) for section in given
    ]
    strtab = len(rows) + 3
    rows.append((".rel.text", REL, 0, rel(RELOCATIONS if relocations is None else relocations),
                 strtab + 1, 1, 16))  # fmt: skip
    rows.append((".rel.rodata", REL, 0, rel(of_rodata or []), strtab + 1, 2, 16))
    rows.append((".strtab", STRTAB, 0, strings, 0, 0, 0))
    rows.append((".symtab", SYMTAB, 0, symtab, strtab, 1, 24))
    shstr, section_names = table([row[0] for row in rows] + [".shstrtab"])
    rows.append((".shstrtab", STRTAB, 0, shstr, 0, 0, 0))
    body, headers = b"", bytes(64)
    for name, type_, flags, data, link_to, info, size in rows:
        headers += struct.pack(
            *("<IIQQQQIIQQ", section_names[name], type_, flags, 0, 64 + len(body), len(data)),
            *(link_to, info, 8, size),
        )
        body += data
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        *(b"\x7fELF\x02\x01\x01", kind, machine, 1, 0, 0, 64 + len(body), 0),
        *(64, 0, 0, 64, len(rows) + 1, len(rows)),
    )
    # The first section is the empty one, so given sections count from 1.
    return header + body + headers


def parts(image: bytes) -> dict[str, tuple[int, int]]:
    """Sections of a linked program: name to offset and size."""
    (at,) = struct.unpack_from("<Q", image, 0x28)
    size, count, names = struct.unpack_from("<HHH", image, 0x3A)
    rows = [struct.unpack_from("<IIQQQQIIQQ", image, at + i * size) for i in range(count)]
    strings = image[rows[names][4] :]
    found = {}
    for name, _, flags, address, offset, length, *_ in rows:
        text = strings[name : strings.index(b"\0", name)].decode()
        assert address == (offset if flags else 0)
        found[text] = (offset, length)
    return found


def test_addresses_calls_and_names_are_resolved() -> None:
    """The load points at the constant, the inner call is relative, the system call stays open."""
    image = link(an_object())
    where = parts(image)
    text, rodata = where[".text"][0], where[".rodata"][0]
    assert struct.unpack_from("<I", image, text + 4) == (rodata + 4,)
    assert image[rodata + 4 : rodata + 9] == b"hello"
    assert struct.unpack_from("<i", image, text + 20) == (-1,)
    assert struct.unpack_from("<i", image, text + 28) == (1,)  # from 32 to 40: one instruction
    at, size = where[".rel.dyn"]
    relocations = list(struct.iter_unpack("<QQ", image[at : at + size]))
    assert relocations == [(text, 8), (text + 16, 1 << 32 | 10)]
    strings = image[where[".dynstr"][0] :][: where[".dynstr"][1]]
    assert strings == b"\0sol_log_\0entrypoint\0"
    assert struct.unpack_from("<HHIQ", image, 16) == (3, 247, 1, text)


def test_a_call_through_the_section_symbol() -> None:
    """Then the immediate counts instructions from the section's start."""
    code = LDDW + CALL + bytes.fromhex("8510000004000000") + EXIT + EXIT
    symbols = [*SYMBOLS[:3], ("", 0x03, 1, 0)]
    image = link(an_object([(".text", PROGBITS, ALLOC | EXEC, code), RODATA], symbols))
    assert struct.unpack_from("<i", image, parts(image)[".text"][0] + 28) == (1,)


def test_a_pointer_in_constants() -> None:
    """Its address stands in the upper half, where version 0 of the loader looks for it."""
    image = link(an_object(of_rodata=[(12, 2, 2)]))
    where = parts(image)
    place = where[".rodata"][0] + 12
    assert struct.unpack_from("<II", image, place) == (0, where[".rodata"][0])
    at, size = where[".rel.dyn"]
    assert (place, 8) in struct.iter_unpack("<QQ", image[at : at + size])


def test_equal_input_gives_equal_output() -> None:
    """No time, no path, no order of a set gets in."""
    assert link(an_object()) == link(an_object())


ODD: list[tuple[str, bytes, str]] = [
    ("empty", b"", "not an ELF64"),
    ("text", b"int main;" * 20, "not an ELF64"),
    ("machine", an_object(machine=62), "not a relocatable BPF object"),
    ("linked", an_object(kind=3), "not a relocatable BPF object"),
    ("cut", an_object()[:-64], "section table is damaged"),
    (
        "data",
        an_object([TEXT, (".data", PROGBITS, ALLOC | WRITE, b"1234")]),
        ".data is writable data",
    ),
    ("bss", an_object([TEXT, (".bss", NOBITS, ALLOC | WRITE, b"")]), ".bss is writable data"),
    (
        "pointers",
        an_object([TEXT, (".data.rel.ro", PROGBITS, ALLOC | WRITE, bytes(8))]),
        ".data.rel.ro is writable data",
    ),
    ("unknown", an_object([TEXT, (".init_array", 14, ALLOC, bytes(8))]), ".init_array"),
    ("no-text", an_object([RODATA, RODATA]), "exactly one .text"),
    (
        "rela",
        an_object([TEXT, RODATA, (".rela.text", RELA, 0, b"")]),
        ".rela.text: relocations with addends",
    ),
    (
        "no-entry",
        an_object(symbols=[("main", 0x12, 1, 0), *SYMBOLS[1:]]),
        "no function entrypoint",
    ),
    ("relocation", an_object(relocations=[(0, 3, 2)]), "relocation type 3 at .text+0x0"),
    ("data-relocation", an_object(of_rodata=[(12, 10, 2)]), "relocation type 10 at .rodata+0xc"),
    (
        "library",
        an_object(symbols=[*SYMBOLS[:2], ("memcpy", 0x10, 0, 0), SYMBOLS[3]]),
        "call of memcpy, which is no known system call",
    ),
    (
        "undefined",
        an_object(symbols=[SYMBOLS[0], ("table", 0x10, 0, 0), *SYMBOLS[2:]]),
        "table is not defined",
    ),
]


@pytest.mark.parametrize(("obj", "message"), [row[1:] for row in ODD], ids=[row[0] for row in ODD])
def test_what_is_not_understood_is_refused(obj: bytes, message: str) -> None:
    """With a message that names it."""
    with pytest.raises(DecloudError) as caught:
        link(obj)
    assert message in caught.value.message


def test_damaged_objects_are_refused_or_linked_but_never_crash() -> None:
    """Three thousand objects with one to four bytes changed, or cut short."""
    rng = random.Random(14)
    good = an_object(of_rodata=[(12, 2, 2)])
    refused = 0
    for _ in range(3000):
        bad = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            bad[rng.randrange(len(bad))] = rng.randrange(256)
        try:
            link(bytes(bad[: rng.choice([len(bad), rng.randrange(len(bad))])]))
        except DecloudError:
            refused += 1
    assert refused > 1000
