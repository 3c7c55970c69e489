"""The encodings of the Encoding Standard (https://encoding.spec.whatwg.org), by Python's codecs.

UTF-8, UTF-16 and all single-byte encodings are exactly those of the standard. In the East Asian encodings, some rare
characters differ. Characters after a malformed one may differ, too.
"""

from __future__ import annotations

import codecs
from functools import cache

__all__ = ["decode", "find_encoding"]

# fmt: off
#: For each name of an encoding: Python's codec, and the labels.
_ENCODINGS: dict[str, tuple[str, str]] = {
    "utf-16be": ("utf-16-be", "unicodefffe utf-16be"),
    "utf-16le": ("utf-16-le", "csunicode iso-10646-ucs-2 ucs-2 unicode unicodefeff utf-16 utf-16le"),
    "utf-8": ("utf-8", "unicode-1-1-utf-8 unicode11utf8 unicode20utf8 utf-8 utf8 x-unicode20utf8"),
    "big5": ("big5hkscs", "big5 big5-hkscs cn-big5 csbig5 x-x-big5"),
    "euc-jp": ("euc_jp", "cseucpkdfmtjapanese euc-jp x-euc-jp"),
    "euc-kr": ("cp949", (
        "cseuckr csksc56011987 euc-kr iso-ir-149 korean ks_c_5601-1987 ks_c_5601-1989 ksc5601 ksc_5601 "
        "windows-949"
    )),
    "gb18030": ("gb18030", "gb18030"),
    "gbk": ("gb18030", "chinese csgb2312 csiso58gb231280 gb2312 gb_2312 gb_2312-80 gbk iso-ir-58 x-gbk"),
    "ibm866": ("cp866", "866 cp866 csibm866 ibm866"),
    "iso-2022-jp": ("iso2022_jp", "csiso2022jp iso-2022-jp"),
    "iso-8859-10": ("iso8859_10", "csisolatin6 iso-8859-10 iso-ir-157 iso8859-10 iso885910 l6 latin6"),
    "iso-8859-13": ("iso8859_13", "iso-8859-13 iso8859-13 iso885913"),
    "iso-8859-14": ("iso8859_14", "iso-8859-14 iso8859-14 iso885914"),
    "iso-8859-15": ("iso8859_15", "csisolatin9 iso-8859-15 iso8859-15 iso885915 iso_8859-15 l9"),
    "iso-8859-16": ("iso8859_16", "iso-8859-16"),
    "iso-8859-2": ("iso8859_2", (
        "csisolatin2 iso-8859-2 iso-ir-101 iso8859-2 iso88592 iso_8859-2 iso_8859-2:1987 l2 latin2"
    )),
    "iso-8859-3": ("iso8859_3", (
        "csisolatin3 iso-8859-3 iso-ir-109 iso8859-3 iso88593 iso_8859-3 iso_8859-3:1988 l3 latin3"
    )),
    "iso-8859-4": ("iso8859_4", (
        "csisolatin4 iso-8859-4 iso-ir-110 iso8859-4 iso88594 iso_8859-4 iso_8859-4:1988 l4 latin4"
    )),
    "iso-8859-5": ("iso8859_5", (
        "csisolatincyrillic cyrillic iso-8859-5 iso-ir-144 iso8859-5 iso88595 iso_8859-5 iso_8859-5:1988"
    )),
    "iso-8859-6": ("iso8859_6", (
        "arabic asmo-708 csiso88596e csiso88596i csisolatinarabic ecma-114 iso-8859-6 iso-8859-6-e "
        "iso-8859-6-i iso-ir-127 iso8859-6 iso88596 iso_8859-6 iso_8859-6:1987"
    )),
    "iso-8859-7": ("iso8859_7", (
        "csisolatingreek ecma-118 elot_928 greek greek8 iso-8859-7 iso-ir-126 iso8859-7 iso88597 "
        "iso_8859-7 iso_8859-7:1987 sun_eu_greek"
    )),
    "iso-8859-8": ("iso8859_8", (
        "csiso88598e csisolatinhebrew hebrew iso-8859-8 iso-8859-8-e iso-ir-138 iso8859-8 iso88598 "
        "iso_8859-8 iso_8859-8:1988 visual"
    )),
    "iso-8859-8-i": ("iso8859_8", "csiso88598i iso-8859-8-i logical"),
    "koi8-r": ("koi8_r", "cskoi8r koi koi8 koi8-r koi8_r"),
    "koi8-u": ("koi8_u", "koi8-ru koi8-u"),
    "macintosh": ("mac_roman", "csmacintosh mac macintosh x-mac-roman"),
    "shift_jis": ("cp932", "csshiftjis ms932 ms_kanji shift-jis shift_jis sjis windows-31j x-sjis"),
    "windows-1250": ("cp1250", "cp1250 windows-1250 x-cp1250"),
    "windows-1251": ("cp1251", "cp1251 windows-1251 x-cp1251"),
    "windows-1252": ("cp1252", (
        "ansi_x3.4-1968 ascii cp1252 cp819 csisolatin1 ibm819 iso-8859-1 iso-ir-100 iso8859-1 iso88591 "
        "iso_8859-1 iso_8859-1:1987 l1 latin1 us-ascii windows-1252 x-cp1252"
    )),
    "windows-1253": ("cp1253", "cp1253 windows-1253 x-cp1253"),
    "windows-1254": ("cp1254", (
        "cp1254 csisolatin5 iso-8859-9 iso-ir-148 iso8859-9 iso88599 iso_8859-9 iso_8859-9:1989 l5 latin5 "
        "windows-1254 x-cp1254"
    )),
    "windows-1255": ("cp1255", "cp1255 windows-1255 x-cp1255"),
    "windows-1256": ("cp1256", "cp1256 windows-1256 x-cp1256"),
    "windows-1257": ("cp1257", "cp1257 windows-1257 x-cp1257"),
    "windows-1258": ("cp1258", "cp1258 windows-1258 x-cp1258"),
    "windows-874": ("cp874", "dos-874 iso-8859-11 iso8859-11 iso885911 tis-620 windows-874"),
    "x-mac-cyrillic": ("mac_cyrillic", "x-mac-cyrillic x-mac-ukrainian"),
}
# fmt: on

#: Those bytes of an encoding for which Python's table differs from the standard's.
_EXCEPTIONS = {"koi8-u": {0xAE: "\u045e", 0xBE: "\u040e"}, "windows-1255": {0xCA: "\u05ba"}}

_UNDEFINED = "\ufffe"  # in tables for `codecs.charmap_decode`

_SPACE = "\t\n\f\r "


def find_encoding(label: str) -> str | None:
    """The name, in lower case, of the encoding with this label. None if no encoding has it."""
    return _names().get(label.strip(_SPACE).lower())


@cache
def _names() -> dict[str, str]:
    return {label: name for name, (_, labels) in _ENCODINGS.items() for label in labels.split()}


def decode(data: bytes, name: str, fatal: bool, final: bool, state: tuple[bytes, int]) -> tuple[str, bytes, int]:
    """Decode a part of the data.

    Returns the text, and the state for the next part. The state has those bytes at the end that are no complete
    character.

    `state` must be (b"", -1) for the first part. For later parts, it must be the state that was returned for the same
    encoding: CPython crashes with other states.

    Raises `UnicodeDecodeError` for malformed data if `fatal` is true.
    """
    errors = "strict" if fatal else "replace"
    codec = _ENCODINGS[name][0]
    if _is_single_byte(name):
        return codecs.charmap_decode(data, errors, _table(name))[0], b"", -1
    decoder = codecs.getincrementaldecoder(codec)(errors)
    if state[1] >= 0:
        decoder.setstate(state)
    text = decoder.decode(data, final)
    return (text, b"", -1) if final else (text, *decoder.getstate())


def _is_single_byte(name: str) -> bool:
    return name.startswith(("iso-8859", "windows", "koi8", "mac", "x-mac", "ibm"))


@cache
def _table(name: str) -> str:
    """The character of each byte, in one text.

    If Python's codec has no character for a byte from 0x80 to 0x9F, this is a control character.
    """
    table = []
    for byte in range(256):
        try:
            character = bytes((byte,)).decode(_ENCODINGS[name][0])
        except UnicodeDecodeError:
            character = chr(byte) if byte < 0xA0 else _UNDEFINED
        table.append(_EXCEPTIONS.get(name, {}).get(byte, character))
    return "".join(table)
