"""What Python's libraries raise for damaged and hostile files, in one place.

None of them has one class for all of it: each lets through what the parts that it is made of raise.
Tuples for `except`, to be put around reading alone. PIL's and pyarrow's stand where they are used,
so that nobody else has to import them.
"""

from __future__ import annotations

import lzma
import struct
import tarfile
import tokenize
import zipfile
import zlib

# gzip's BadGzipFile is an OSError. EOFError: the file is cut off.
GZIP = (OSError, EOFError, zlib.error)
# UnicodeError: a name that is no text.
TAR = (*GZIP, tarfile.TarError, UnicodeError)
# Beside zipfile's own class: struct's for short headers, ValueError and OverflowError for positions
# that can't be, RuntimeError for encrypted entries (its child NotImplementedError for compressions
# and versions that Python doesn't know), and what the three ways to decompress raise.
ZIP = (
    *(*GZIP, lzma.LZMAError, zipfile.BadZipFile, struct.error),
    *(ValueError, OverflowError, RuntimeError),
)
# numpy reads an array's header as a Python literal: what Python's parser and tokenizer raise then,
# and MemoryError where it is nested too deeply.
NPY_HEADER = (ValueError, TypeError, SyntaxError, tokenize.TokenError, MemoryError)
