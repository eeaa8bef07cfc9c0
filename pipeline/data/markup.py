"""Markup: HTML, RTF and front matter → the text in them; every other file is read as the text that it is.

HTML is read by Beautiful Soup, RTF by striprtf. Such a file is held in memory, and so must not be large; what has front
matter is a stream like all others. Reading order: what others use, HTML, RTF, front matter.
"""

from __future__ import annotations

import codecs
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from pipeline.config import CorpusConfig
from pipeline.data.encodings import AUTO, BYTE_ORDER_MARKS, decode, encoding_of, read_bytes, suffix_of
from pipeline.notices import say_once
from pipeline.settings import RequestError, one_line

HTML_SUFFIXES, MARKDOWN_SUFFIXES = (".html", ".htm", ".xhtml"), (".md", ".markdown")
MAX_BYTES = 1 << 25  # of an HTML or RTF file
MAX_FRONT_MATTER = 1 << 16  # characters
_HTML = re.compile(r"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(!doctype\s+html|html)\b", re.IGNORECASE | re.DOTALL)


def read_text(path: Path, config: CorpusConfig) -> Iterator[str]:
    """Yields a file's text chunk by chunk, not yet cleaned; markup is reduced to its text, which is said.

    Args:
        path: a file that is no table.
        config: `markup`, `encoding` and `errors`.

    Raises:
        RequestError: the file cannot be decoded or converted.
    """
    if config.markup == "keep":
        return decode(path, config)
    kind = kind_of(path)
    if kind:
        say_once(f"{path} holds {kind}: only its text is read (corpus.markup=keep reads it as it stands).")
        return iter([{"HTML": _html_text, "RTF": _rtf_text}[kind](path, config)])
    if suffix_of(path) in MARKDOWN_SUFFIXES:
        return _without_front_matter(path, decode(path, config))
    return decode(path, config)


def kind_of(path: Path) -> str:
    """Returns "HTML" or "RTF", by how a file begins or what it is called, or else ""."""
    first = next(read_bytes(path), b"")[:4096]
    mark = next((mark for mark in BYTE_ORDER_MARKS if first.startswith(mark)), b"")
    begins = first[len(mark) :].decode(BYTE_ORDER_MARKS.get(mark, "latin-1"), "replace")
    if begins.lstrip().startswith("{\\rtf"):
        return "RTF"
    return "HTML" if suffix_of(path) in HTML_SUFFIXES or _HTML.match(begins) else ""


def _whole(path: Path, kind: str) -> bytes:
    chunks, size = [], 0
    for chunk in read_bytes(path):
        chunks.append(chunk)
        size += len(chunk)
        if size > MAX_BYTES:
            raise RequestError(
                f"{path} holds {kind} and more than {MAX_BYTES >> 20} MB, too much to be converted at once: save its "
                "text as .txt from the program that shows it, cut it into several files, or set corpus.markup=keep."
            )
    return b"".join(chunks)


# === HTML ===

_UNSEEN = ["script", "style", "template", "noscript", "title", "iframe", "object", "svg", "math", "canvas", "datalist"]
_BLOCKS = (
    "address article aside blockquote body caption center dd details dialog dir div dl dt fieldset figcaption figure "
    "footer form h1 h2 h3 h4 h5 h6 header hgroup hr html legend li listing main menu nav ol optgroup option p pre "
    "search section select summary table tbody tfoot thead tr ul xmp"
).split()
# Noncharacters, which no text should hold, for what is not to be collapsed: a line end, the border of a block, that of
# a paragraph, which a blank line parts from others; and white space that stays.
_LINE_END, _BLOCK, _PARAGRAPH = "\ufdd8", "\ufddb", "\ufddc"
_PRE = {" ": "\ufdd9", "\t": "\ufdda", "\n": _LINE_END, "\r": ""}


def html_text(markup: str) -> str:
    """Returns what a browser would show of a page, without layout: blocks end lines, white space is collapsed.

    >>> html_text("<head><title>x</title><p>One &amp;<br>two<script>three</script>\\n  four")
    'One &\\ntwo four\\n'
    """
    from bs4 import BeautifulSoup  # here, not above: it takes a tenth of a second

    soup = BeautifulSoup(markup, "html.parser")
    for element in soup.find_all(_UNSEEN) + soup.find_all(hidden=True):
        element.decompose()
    for text in soup.find_all(string=True):
        if text.find_parent(["pre", "textarea", "listing", "xmp"]):
            kept = str(text).replace("\r\n", "\n").translate(str.maketrans(_PRE))
        else:
            kept = re.sub(r"[ \t\n\r\f]+", " ", str(text))
        if kept != text:
            text.replace_with(type(text)(kept))
    for element in soup.find_all("br"):
        element.insert_before(_LINE_END)  # within it stands what follows, if it was closed wrongly
    for element in soup.find_all(["td", "th"]):
        element.insert_before("\t")
    for element in soup.find_all(_BLOCKS):
        border = _PARAGRAPH if element.name == "p" else _BLOCK
        element.insert_before(border)
        element.insert_after(border)
    return _shown(soup.get_text())


def _shown(text: str) -> str:
    """Collapses white space, and the borders of blocks that touch each other."""
    text = re.sub(" *\t *", "\t", re.sub(" +", " ", text))
    text = re.sub(f"[ \t{_LINE_END}{_BLOCK}{_PARAGRAPH}]*[{_LINE_END}{_BLOCK}{_PARAGRAPH}][ \t]*", _line_ends, text)
    text = text.translate(str.maketrans({mark: kept for kept, mark in _PRE.items() if kept in " \t"}))
    text = text.strip("\n").rstrip(" \t").lstrip("\t")
    return text + "\n" if text else ""


def _line_ends(found: re.Match[str]) -> str:
    return "\n" * max(found[0].count(_LINE_END), 2 if _PARAGRAPH in found[0] else 1)


def _html_text(path: Path, config: CorpusConfig) -> str:
    """Decodes and converts a page; the encoding that it declares goes before what its bytes look like."""
    page = _whole(path, "HTML")
    encoding, mark = "", b""
    if config.encoding == AUTO and not any(map(page.startswith, BYTE_ORDER_MARKS)):
        encoding = _declared(page)
    if not encoding:
        encoding, mark = encoding_of(path, page, config)
    try:
        return html_text(page[len(mark) :].decode(encoding, config.errors))
    except (ValueError, RecursionError) as error:
        raise RequestError(
            f"{path} cannot be converted from HTML ({one_line(error)}): name its encoding, or save its text as .txt "
            "from a browser."
        ) from None


def _declared(page: bytes) -> str:
    """Returns the encoding that a page declares, if it is true; browsers read Latin-1 and ASCII as cp1252."""
    from bs4.dammit import EncodingDetector

    declared = EncodingDetector.find_declared_encoding(page, is_html=True) or ""
    try:
        encoding = codecs.lookup(declared).name
        encoding = "cp1252" if encoding in ("iso8859-1", "ascii") else encoding
        page.decode(encoding)
    except (LookupError, ValueError):
        return ""
    # A page that is UTF-8 beyond ASCII is so, whatever it declares: it was converted, and its head was not.
    return "utf-8" if _is_utf_8(page) else encoding


def _is_utf_8(page: bytes) -> bool:
    try:
        page.decode()
        return True
    except UnicodeDecodeError:
        return False


# === RTF ===


def rtf_text(markup: str) -> str:
    """Returns the text of an RTF document, a paragraph a line; cells of tables are separated by tabs.

    >>> rtf_text(r"{\\rtf1\\ansi One \\'93two\\'94\\par three\\cell four}")
    'One “two”\\nthree\\tfour'
    """
    from striprtf.striprtf import rtf_to_text  # here, not above: few need it

    markup = re.sub(r"\\(?:nest)?cell(?![a-z])", r"\\tab", markup)
    # Otherwise the address of a link would stand behind its text.
    markup = re.sub(r"(\\fldinst\b[^{}]*\{?[^{}]*?)HYPERLINK", r"\1LINK", markup)
    text = rtf_to_text(markup, errors="replace")
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # RTF writes an emoji as two halves


def _rtf_text(path: Path, config: CorpusConfig) -> str:
    """Converts a document. RTF is ASCII; programs that write other bytes mean the code page that is declared."""
    document = _whole(path, "RTF").lstrip(codecs.BOM_UTF8)
    page = re.search(rb"\\ansicpg(\d+)", document[:4096])
    encodings = [f"cp{page[1].decode()}"] if page else []
    for encoding in [*encodings, "cp1252", "latin-1"]:
        try:
            return rtf_text(document.lstrip().decode(encoding))
        except LookupError:
            continue
        except UnicodeDecodeError:
            continue
        except Exception as error:  # striprtf has no error of its own: whatever a broken document leads to
            raise RequestError(
                f"{path} begins like RTF, but cannot be converted ({one_line(error)}): save its text as .txt from a "
                "word processor, or read it as it stands, corpus.markup=keep."
            ) from None
    raise AssertionError("Latin-1 has a meaning for every byte")


# === Front matter ===

_FENCES = {"---": ("---", "..."), "+++": ("+++",)}  # the line before it → the lines that may end it


def _without_front_matter(path: Path, chunks: Iterator[str]) -> Iterator[str]:
    """Leaves out the settings between two lines `---` at the very start of a Markdown file."""
    head = ""
    for chunk in chunks:
        head += chunk
        if len(head) > MAX_FRONT_MATTER or not any(fence.startswith(head[:3]) for fence in _FENCES):
            break
    end = _end_of_front_matter(head)
    if end:
        say_once(f"{path} begins with front matter, which is left out (corpus.markup=keep reads it, too).")
    return itertools.chain([head[end:]], chunks)


def _end_of_front_matter(head: str) -> int:
    """Returns where the text begins: 0 if there is no front matter, such as a mere rule or a dialogue's dash.

    >>> _end_of_front_matter("---\\ntitle: x\\n---\\ntext"), _end_of_front_matter("---\\n\\ntext\\n---\\n")
    (17, 0)
    """
    lines = head[:MAX_FRONT_MATTER].splitlines(keepends=True)
    ends = _FENCES.get(lines[0].rstrip() if lines else "")
    if not ends:
        return 0
    for number, line in enumerate(lines[1:], start=1):
        if line.rstrip() in ends:
            inside = lines[1:number]
            return len("".join(lines[: number + 1])) if any(map(_is_key, inside)) or not inside else 0
    return 0


def _is_key(line: str) -> bool:
    return bool(re.match(r"[\w\"'-]+\s*[:=]", line))
