"""From clang's relocatable BPF object to the shared object that the Solana loader accepts.

The loader (bytecode version 0) wants an ELF64 little-endian ET_DYN file for machine 247 in which
every section's address is its file offset; one `.text` with the entry point, optionally `.rodata`,
nothing writable; a PT_DYNAMIC segment naming symbols, strings and relocations; and section headers.
Two kinds of relocation remain for it: R_BPF_64_RELATIVE where an address is loaded or stored (it
adds the base of program memory) and R_BPF_64_32 where a system call is named.

This is no general linker. One object goes in, and what isn't understood is refused.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from decloud_trainer.errors import DecloudError

SYSCALLS = frozenset(
    {
        "abort",
        "sol_create_program_address",
        "sol_get_clock_sysvar",
        "sol_invoke_signed_c",
        "sol_log_",
        "sol_log_data",
        "sol_log_pubkey",
        "sol_memcmp_",
        "sol_memcpy_",
        "sol_memmove_",
        "sol_memset_",
        "sol_try_find_program_address",
    }
)
ENTRY = "entrypoint"

EM_BPF = 247
ET_REL, ET_DYN = 1, 3
SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB = 1, 2, 3
SHT_RELA, SHT_DYNAMIC, SHT_REL, SHT_DYNSYM = 4, 6, 9, 11
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR = 1, 2, 4
STT_SECTION = 3
R_BPF_64_64, R_BPF_64_ABS64, R_BPF_64_RELATIVE, R_BPF_64_32 = 1, 2, 8, 10
DT_STRTAB, DT_SYMTAB, DT_STRSZ, DT_SYMENT = 5, 6, 10, 11
DT_REL, DT_RELSZ, DT_RELENT = 17, 18, 19
PT_LOAD, PT_DYNAMIC = 1, 2
PF_X, PF_W, PF_R = 1, 2, 4

ELF_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")
SYMBOL = struct.Struct("<IBBHQQ")
PAIR = struct.Struct("<QQ")  # a relocation without addend, and an entry of .dynamic
SEGMENTS = 3
MAX_ALIGN = 64


@dataclass(frozen=True, slots=True)
class Section:
    name: str
    type: int
    flags: int
    link: int
    info: int
    align: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Symbol:
    name: str
    kind: int
    section: int  # 0: not defined in this object
    value: int


@dataclass(frozen=True, slots=True)
class Relocation:
    section: int  # index of the section to change
    offset: int
    type: int
    symbol: Symbol


@dataclass(slots=True)
class Image:
    """Code and constants at their final addresses, and what the loader has to do with them."""

    start: int
    bytes: bytearray
    text_size: int
    entry: int
    addresses: dict[int, int]  # of the object's sections
    imports: list[str] = field(default_factory=list)
    relocations: list[tuple[int, int, int]] = field(default_factory=list)  # address, type, symbol

    def at(self, address: int) -> int:
        return address - self.start


def link(obj: bytes) -> bytes:
    """The loadable program for one object of `clang -target bpf -c`; equal input, equal output.

    Raises:
        DecloudError: not such an object or a damaged one, or it has writable data, an unknown
            section, symbol or relocation, or no entry point.
    """
    try:
        sections = _sections(obj)
        symbols = _symbols(sections)
        image = _place(sections, symbols)
        for relocation in _relocations(sections, symbols):
            _relocate(image, relocation, sections)
        return _write(image)
    except (IndexError, struct.error) as error:
        raise DecloudError(f"the object's tables contradict each other: {error}") from error


def _sections(obj: bytes) -> list[Section]:
    if len(obj) < ELF_HEADER.size or obj[:7] != b"\x7fELF\x02\x01\x01":
        raise DecloudError("not an ELF64 little-endian object")
    header = ELF_HEADER.unpack_from(obj)
    if header[1] != ET_REL or header[2] != EM_BPF:
        raise DecloudError("not a relocatable BPF object", hint="compile with -target bpf -c")
    table, entry_size, count, names_index = header[6], header[11], header[12], header[13]
    if entry_size != SECTION_HEADER.size or table + count * entry_size > len(obj):
        raise DecloudError("the section table is damaged")
    rows = [SECTION_HEADER.unpack_from(obj, table + i * entry_size) for i in range(count)]
    if names_index >= count:
        raise DecloudError("the section names are missing")
    names = obj[rows[names_index][4] : rows[names_index][4] + rows[names_index][5]]
    sections = []
    for name, kind, flags, _, offset, size, link_to, info, align, _ in rows:
        section_name = _text(names, name)
        if flags & SHF_ALLOC:
            _refuse_foreign(section_name, kind, flags)
        data = obj[offset : offset + size]
        if len(data) != size:
            raise DecloudError(f"section {section_name} lies outside of the file")
        sections.append(Section(section_name, kind, flags, link_to, info, align, data))
    return sections


def _refuse_foreign(name: str, kind: int, flags: int) -> None:
    """Everything loaded must be code in .text or constants in .rodata*."""
    if flags & SHF_WRITE:
        raise DecloudError(
            f"section {name} is writable data, which a program can't have",
            hint="make it const, or keep it on the heap",
        )
    if kind != SHT_PROGBITS or not (name == ".text" or _is_rodata(name)):
        raise DecloudError(f"section {name} (type {kind}) has no place in a program")


def _is_rodata(name: str) -> bool:
    return name == ".rodata" or name.startswith(".rodata.")


def _text(table: bytes, offset: int) -> str:
    end = table.find(b"\0", offset)
    if end < 0:
        raise DecloudError("a name lies outside of its table")
    return table[offset:end].decode("ascii", errors="replace")


def _symbols(sections: list[Section]) -> list[Symbol]:
    tables = [section for section in sections if section.type == SHT_SYMTAB]
    if len(tables) != 1 or tables[0].link >= len(sections):
        raise DecloudError("the object must have exactly one symbol table")
    names = sections[tables[0].link].data
    return [
        Symbol(_text(names, name), info & 15, section, value)
        for name, info, _, section, value, _ in SYMBOL.iter_unpack(tables[0].data)
    ]


def _relocations(sections: list[Section], symbols: list[Symbol]) -> list[Relocation]:
    found = []
    for section in sections:
        if section.type == SHT_RELA:
            raise DecloudError(f"{section.name}: relocations with addends are not expected for BPF")
        if section.type != SHT_REL or not sections[section.info].flags & SHF_ALLOC:
            continue
        for offset, info in PAIR.iter_unpack(section.data):
            symbol = symbols[info >> 32]
            if offset + 8 > len(sections[section.info].data):
                raise DecloudError(f"{section.name} changes a place outside of its section")
            found.append(Relocation(section.info, offset, info & 0xFFFFFFFF, symbol))
    return found


def _place(sections: list[Section], symbols: list[Symbol]) -> Image:
    """Code first, then all constants, each at an address that is its offset in the file."""
    code = [index for index, section in enumerate(sections) if section.name == ".text"]
    if len(code) != 1 or not sections[code[0]].data:
        raise DecloudError("the object must have exactly one .text section with code")
    start = ELF_HEADER.size + SEGMENTS * PROGRAM_HEADER.size
    content = bytearray(sections[code[0]].data)
    text_size = len(content)
    addresses = {code[0]: start}
    for index, section in enumerate(sections):
        if section.flags & SHF_ALLOC and _is_rodata(section.name):
            if section.align > MAX_ALIGN:
                raise DecloudError(f"section {section.name} wants an alignment of {section.align}")
            _pad(content, start, max(section.align, 8))
            addresses[index] = start + len(content)
            content += section.data
    _pad(content, start, 8)
    entries = [s for s in symbols if s.name == ENTRY and s.section == code[0]]
    if len(entries) != 1 or entries[0].value >= text_size:
        raise DecloudError(f"the object defines no function {ENTRY}")
    return Image(start, content, text_size, start + entries[0].value, addresses)


def _pad(content: bytearray, start: int, align: int) -> None:
    content += bytes(-(start + len(content)) % align)


def _relocate(image: Image, relocation: Relocation, sections: list[Section]) -> None:
    target = sections[relocation.section].name
    place = image.addresses[relocation.section] + relocation.offset
    if target == ".text" and relocation.type == R_BPF_64_64:
        _load_address(image, place, relocation.symbol)
    elif target == ".text" and relocation.type == R_BPF_64_32:
        _call(image, place, relocation.symbol)
    elif _is_rodata(target) and relocation.type == R_BPF_64_ABS64:
        _store_address(image, place, relocation.symbol)
    else:
        raise DecloudError(
            f"relocation type {relocation.type} at {target}+{relocation.offset:#x} "
            f"({relocation.symbol.name or 'unnamed'}) is not known"
        )


def _address(image: Image, symbol: Symbol) -> int:
    if symbol.section not in image.addresses:
        raise DecloudError(f"{symbol.name or 'a symbol'} is not defined in code or constants")
    return image.addresses[symbol.section] + symbol.value


def _load_address(image: Image, place: int, symbol: Symbol) -> None:
    """`lddw`: a 64-bit immediate in two halves; what stands in the lower one is the addend."""
    at = image.at(place)
    (addend,) = struct.unpack_from("<I", image.bytes, at + 4)
    struct.pack_into("<I", image.bytes, at + 4, _address(image, symbol) + addend)
    struct.pack_into("<I", image.bytes, at + 12, 0)
    image.relocations.append((place, R_BPF_64_RELATIVE, 0))


def _store_address(image: Image, place: int, symbol: Symbol) -> None:
    """A pointer in constants. Version 0 of the loader reads it from the upper four bytes."""
    at = image.at(place)
    (addend,) = struct.unpack_from("<Q", image.bytes, at)
    struct.pack_into("<II", image.bytes, at, 0, _address(image, symbol) + addend)
    image.relocations.append((place, R_BPF_64_RELATIVE, 0))


def _call(image: Image, place: int, symbol: Symbol) -> None:
    """A system call stays open, by name; a call inside the program becomes relative."""
    at = image.at(place)
    if symbol.section == 0:
        if symbol.name not in SYSCALLS:
            raise DecloudError(
                f"call of {symbol.name}, which is no known system call",
                hint="a library function that clang inserted? keep structs and loops small",
            )
        if symbol.name not in image.imports:
            image.imports.append(symbol.name)
        number = image.imports.index(symbol.name) + 1  # 0 is the empty symbol
        image.relocations.append((place, R_BPF_64_32, number))
        struct.pack_into("<i", image.bytes, at + 4, -1)
        return
    target = _address(image, symbol)
    if symbol.kind == STT_SECTION:  # then the immediate counts instructions from its start
        (count,) = struct.unpack_from("<i", image.bytes, at + 4)
        target += (count + 1) * 8
    struct.pack_into("<i", image.bytes, at + 4, (target - (place + 8)) // 8)


def _names(names: list[str]) -> tuple[bytes, dict[str, int]]:
    table, offsets = b"\0", {"": 0}
    for name in names:
        offsets[name] = len(table)
        table += name.encode() + b"\0"
    return table, offsets


def _dynamic_symbols(image: Image) -> tuple[bytes, bytes]:
    """.dynsym and .dynstr: the empty symbol, the system calls, the entry point."""
    strings, offsets = _names([*image.imports, ENTRY])
    table = bytes(SYMBOL.size)
    for name in image.imports:
        table += SYMBOL.pack(offsets[name], 0x10, 0, 0, 0, 0)  # global, undefined
    table += SYMBOL.pack(offsets[ENTRY], 0x12, 0, 1, image.entry, 0)  # global function in .text
    return table, strings


def _write(image: Image) -> bytes:
    """The file: headers, code, constants, the loader's tables, section table."""
    symbols, strings = _dynamic_symbols(image)
    relocations = b"".join(
        PAIR.pack(place, symbol << 32 | kind) for place, kind, symbol in sorted(image.relocations)
    )
    rodata_at = image.start + image.text_size
    dynamic_at = image.start + len(image.bytes)
    dynamic_size = 8 * PAIR.size
    symbols_at = dynamic_at + dynamic_size
    relocations_at = symbols_at + len(symbols)
    strings_at = relocations_at + len(relocations)
    strings_end = strings_at + len(strings)
    dynamic = [
        *((DT_REL, relocations_at), (DT_RELSZ, len(relocations)), (DT_RELENT, PAIR.size)),
        *((DT_SYMTAB, symbols_at), (DT_SYMENT, SYMBOL.size)),
        *((DT_STRTAB, strings_at), (DT_STRSZ, len(strings)), (0, 0)),
    ]
    readable, code, writable = SHF_ALLOC, SHF_ALLOC | SHF_EXECINSTR, SHF_ALLOC | SHF_WRITE
    # name, type, flags, start, end, index of a related section, another, alignment, entry size
    rows = [
        ("", 0, 0, 0, 0, 0, 0, 0, 0),
        (".text", SHT_PROGBITS, code, image.start, rodata_at, 0, 0, 8, 0),
        (".rodata", SHT_PROGBITS, readable, rodata_at, dynamic_at, 0, 0, 8, 0),
        (".dynamic", SHT_DYNAMIC, writable, dynamic_at, symbols_at, 6, 0, 8, PAIR.size),
        (".dynsym", SHT_DYNSYM, readable, symbols_at, relocations_at, 6, 1, 8, SYMBOL.size),
        (".rel.dyn", SHT_REL, readable, relocations_at, strings_at, 4, 0, 8, PAIR.size),
        (".dynstr", SHT_STRTAB, readable, strings_at, strings_end, 0, 0, 1, 0),
    ]
    names, name_at = _names([*(row[0] for row in rows[1:]), ".shstrtab"])
    rows.append((".shstrtab", SHT_STRTAB, 0, strings_end, strings_end + len(names), 0, 0, 1, 0))

    body = image.bytes + b"".join(PAIR.pack(*entry) for entry in dynamic)
    body += symbols + relocations + strings + names
    _pad(body, image.start, 8)
    for name, kind, flags, start, end, link_to, info, align, entry_size in rows:
        address = start if flags else 0
        body += SECTION_HEADER.pack(
            *(name_at[name], kind, flags, address, start, end - start),
            *(link_to, info, align, entry_size),
        )
    table_at = image.start + len(body) - len(rows) * SECTION_HEADER.size
    header = ELF_HEADER.pack(
        *(b"\x7fELF\x02\x01\x01", ET_DYN, EM_BPF, 1, image.entry, ELF_HEADER.size, table_at, 0),
        *(ELF_HEADER.size, PROGRAM_HEADER.size, SEGMENTS),
        *(SECTION_HEADER.size, len(rows), len(rows) - 1),
    )
    return (
        header
        + _segment(PT_LOAD, PF_R | PF_X, image.start, dynamic_at)
        + _segment(PT_LOAD, PF_R | PF_W, dynamic_at, strings_end)
        + _segment(PT_DYNAMIC, PF_R | PF_W, dynamic_at, symbols_at)
        + bytes(body)
    )


def _segment(kind: int, flags: int, start: int, end: int) -> bytes:
    return PROGRAM_HEADER.pack(kind, flags, start, start, start, end - start, end - start, 8)
