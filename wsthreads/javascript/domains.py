"""Converts domain names in URLs to ASCII, as https://url.spec.whatwg.org/#idna and Unicode's UTS #46 demand.

The package `idna` has the tables, and the rules for bidirectional text and for joiners. The package is imported only
for names that are not plain ASCII.
"""

from __future__ import annotations

import unicodedata

__all__ = ["domain_to_ascii"]

_PREFIX = "xn--"

#: Longer domain names are refused, because the time for a name grows faster than its length. Valid names have at most
#: 253 characters.
MAX_CHARS = 5000


def domain_to_ascii(domain: str) -> str | None:
    """Convert a domain name to ASCII. Returns None if it is not valid.

    The result may have characters that URLs forbid.
    """
    import idna

    if len(domain) > MAX_CHARS:
        return None
    try:
        mapped = idna.uts46_remap(domain, std3_rules=False, transitional=False)
        labels = [_unicode_label(label) for label in mapped.split(".")]
        if any(unicodedata.bidirectional(character) in ("R", "AL", "AN") for label in labels for character in label):
            for label in labels:
                if label and not idna.check_bidi(label, check_ltr=True):
                    return None
    except (idna.IDNAError, UnicodeError, ValueError):
        return None
    return ".".join(label if label.isascii() else _PREFIX + _punycode(label) for label in labels)


def _unicode_label(label: str) -> str:
    """Convert a label to its Unicode form, if it is in Punycode. Raises `ValueError` if it is not valid."""
    if label.startswith(_PREFIX):
        label = label[len(_PREFIX) :]
        if not label.isascii():
            raise ValueError("Punycode must be ASCII")
        encoded, label = label, label.encode().decode("punycode")
        if not label or label.isascii() or _punycode(label) != encoded:
            raise ValueError("not valid Punycode: it decodes to ASCII, or to a text with another Punycode")
    if not label.isascii():
        _check(label)
    return label


def _check(label: str) -> None:
    """Check that a label is valid (UTS #46, section 4.1). Raises `ValueError`."""
    import idna

    if unicodedata.normalize("NFC", label) != label or unicodedata.category(label[0]).startswith("M"):
        raise ValueError("a label is in NFC, and begins with no mark")
    for index, character in enumerate(label):
        if character in "\u200c\u200d":
            if not idna.valid_contextj(label, index):
                raise ValueError("a joiner joins nothing")
        elif character == "." or idna.uts46_remap(character, std3_rules=False, transitional=False) != character:
            raise ValueError("a label has characters that were to be mapped")


def _punycode(label: str) -> str:
    return label.encode("punycode").decode()
