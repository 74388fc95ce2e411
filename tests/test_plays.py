"""The parser of the sample project's plays: every form of its input, then the real files."""

import re
from collections.abc import Iterator
from importlib import metadata

import pytest
from library import plays
from library.plays import Play, Source, Speech, count_lines, count_words, find_plays, parse_play

# Invented lines, in the forms that the files have; ~ stands for two spaces at a line's end.
MARKED = """\
# The Two Kettles

## PROLOGUE. A kitchen

**Cook**~
Sit down, and mind the~
steam.

## ACT I

_Enter two Kettles_

### SCENE I. A stove.

_The fire burns low. Enter TIN, and
COPPER, quarrelling_

**TIN**~
_\\[Aside]_~
It boils.

_Whistles_

It boils,\\--again!

**COPPER**~
__\\[Singing]_~
Well-met, & c.

#### SCENE XIV. The same.

**First Spoon**~
_Exit_

**First spoon &amp; TIN**~
We _\\[softly]_ ring.

## ACT IV~

**TIN**~
[Within]_~
Before any scene.

# INTERMISSION~

### Prologue

_A gong_

Nobody is named here.

# EPILOGUE


**TIN**~
Done.
""".replace("~", "  ")


def outline(play: Play) -> list[tuple[int, int, str]]:
    return [(scene.act, scene.number, scene.title) for scene in play.scenes]


def speeches(play: Play) -> list[Speech]:
    return [speech for scene in play.scenes for speech in scene.speeches]


def scene(body: str, heading: str = "### SCENE I. A stove.") -> Play:
    return parse_play(f"# The Two Kettles\n\n## ACT I\n\n{heading}\n\n{body}\n")


class TestMarkedForms:
    play = parse_play(MARKED)

    def test_title(self) -> None:
        assert self.play.title == "The Two Kettles"

    def test_scenes_with_headings_of_every_level(self) -> None:
        # The intermission, in which nobody speaks, is none.
        assert outline(self.play) == [
            (0, 0, "Prologue. A kitchen"),
            (1, 1, "A stove."),
            (1, 14, "The same."),
            (4, 0, "Opening"),
            (4, 0, "Prologue"),
            (4, 0, "Epilogue"),
        ]

    def test_speeches_without_headings_directions_and_marks(self) -> None:
        assert speeches(self.play) == [
            Speech("COOK", "Sit down, and mind the\nsteam."),
            Speech("TIN", "It boils.\nIt boils,--again!"),
            Speech("COPPER", "Well-met, & c."),
            # FIRST SPOON only leaves: no speech.
            Speech("FIRST SPOON & TIN", "We ring."),
            Speech("TIN", "Before any scene."),
            Speech("", "Nobody is named here."),
            Speech("TIN", "Done."),
        ]

    def test_a_speech_before_any_heading_is_kept(self) -> None:
        play = parse_play("**TIN**  \nHot.\n")
        assert (play.title, speeches(play)) == ("", [Speech("TIN", "Hot.")])

    def test_emphasis_with_asterisks_is_a_direction_too(self) -> None:
        play = scene("*Enter TIN and\nCOPPER.*\n\n**TIN**  \n*[Reads.]*  \nHot.\n\n*Exit.* ")
        assert speeches(play) == [Speech("TIN", "Hot.")]

    def test_a_direction_in_the_speakers_paragraph(self) -> None:
        play = scene("**TIN**  \nHot.\n\n_\\[To COPPER]_  \n**COPPER**  \nCold.")
        assert speeches(play) == [Speech("TIN", "Hot."), Speech("COPPER", "Cold.")]

    def test_two_empty_lines_between_speeches(self) -> None:
        play = scene("**TIN**  \nHot.\n\n\n**COPPER**  \nCold.\n\n\n\nVery.")
        assert speeches(play) == [Speech("TIN", "Hot."), Speech("COPPER", "Cold.\nVery.")]


class TestUnmarkedForms:
    @pytest.mark.parametrize(
        ("heading", "expected"),
        [
            ("### SCENE II. A stove;\n\nthe kettles  \nasleep.", "A stove; the kettles asleep."),
            ("SCENE II: A stove.", "A stove."),
            ("SCENE II:", ""),
            ("**Scene II**  \nA stove.", "A stove."),
            ("## SCENE II", ""),
        ],
    )
    def test_headings_of_a_scene(self, heading: str, expected: str) -> None:
        play = scene("_Enter TIN_\n\n**TIN**  \nHot.", heading)
        assert outline(play) == [(1, 2, expected)]
        assert speeches(play) == [Speech("TIN", "Hot.")]

    def test_an_epilogue_that_names_its_speaker(self) -> None:
        play = scene("**TIN**  \nHot.\n\nEPILOGUE  \nSPOKEN BY COPPER  \nThe end\nis cold.")
        assert outline(play)[1:] == [(1, 0, "Epilogue")]
        assert speeches(play)[1:] == [Speech("COPPER", "The end\nis cold.")]

    def test_an_epilogue_that_names_nobody(self) -> None:
        play = scene("**TIN**  \nHot.\n\nEPILOGUE  \nThe end.")
        assert speeches(play)[1:] == [Speech("", "The end.")]

    def test_a_speakers_name_broken_in_two(self) -> None:
        play = scene("KNIGHT\n\n**OF THE SPOON**  \nHot.  \nTin's\n\n**First Lid**  \nCold.")
        assert speeches(play) == [
            Speech("KNIGHT OF THE SPOON", "Hot."),
            Speech("TIN'S FIRST LID", "Cold."),
        ]

    def test_what_is_printed_but_not_spoken(self) -> None:
        play = scene(
            "**TIN**  \nHot.  \nTHE TWO KETTLES\n\nCold.  \nSONG.  \nLa la.\n\n"
            "1\\. Two lids.  \n2\\. A spoon, with  \na string.\n\nTHE SONG.\n\nLa."
        )
        assert speeches(play) == [Speech("TIN", "Hot.\nCold.\nLa la.\nLa.")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 0),
        ("-- ' - .", 0),
        ("'Tis o'er, well-met", 3),
        ("sweet--so 'sweet'--", 3),
        ("one\ntwo", 2),
    ],
)
def test_words(text: str, words: int) -> None:
    assert count_words(text) == words


@pytest.mark.parametrize(("text", "lines"), [("", 0), ("one", 1), ("one\ntwo", 2)])
def test_lines(text: str, lines: int) -> None:
    assert count_lines(text) == lines


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def files(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", files)
    with pytest.raises(plays.PlaysNotInstalled, match=r"pip install .*\[sample\]"):
        find_plays()


# The real files.

SOURCES = find_plays()

# Words that a file prints as if they were spoken, and that the parser knows to be none. Each was
# read by eye: the rest of a scene's place, running heads, titles of songs, halves of names, one
# procession (178 words), headings without marks.
PRINTED_ONLY = {
    "a-midsummer-night-s-dream": 2,
    "antony-and-cleopatra": 2,
    "as-you-like-it": 5,
    "coriolanus": 4,
    "cymbeline": 13,
    "henry-iv-part-1": 4,
    "henry-iv-part-2": 3,
    "henry-v": 1,
    "henry-vi-part-1": 67,
    "henry-vi-part-3": 1,
    "henry-viii": 180,
    "king-lear": 7,
    "love-s-labours-lost": 24,
    "much-ado-about-nothing": 1,
    "othello": 3,
    "pericles": 60,
    "richard-iii": 4,
    "the-merchant-of-venice": 9,
    "the-merry-wives-of-windsor": 1,
    "the-tempest": 4,
    "timon-of-athens": 8,
    "twelfth-night": 1,
    "two-gentlemen-of-verona": 1,
}


@pytest.fixture(params=SOURCES, ids=lambda source: source.slug)
def source(request: pytest.FixtureRequest) -> Source:
    param: Source = request.param
    return param


def unmarked_lines(markdown: str) -> Iterator[str]:
    """What is left without headings, speakers and directions: crude, and not by the parser."""
    for paragraph in markdown.replace("*", "_").split("\n\n"):
        lines = [
            line
            for line in paragraph.split("\n")
            # Whole lines of markup; what is left has its underscores in pairs.
            if not re.match(r"#|__.*__ *$|\[.*\]_ *$|_.*_ *$", line)
        ]
        inside_and_outside = "\n".join(lines).replace("__", "_").split("_")
        assert len(inside_and_outside) % 2 == 1
        yield " ".join(inside_and_outside[::2]).replace("&amp;", "&")


def test_all_the_plays_are_there() -> None:
    assert len(SOURCES) == 38
    assert len({source.slug for source in SOURCES}) == 38
    assert {source.genre for source in SOURCES} == {
        "comedies",
        "histories",
        "problems",
        "roman",
        "romances",
        "tragedies",
    }


def test_a_play_has_scenes_and_each_has_speeches(source: Source) -> None:
    play = source.parse()
    assert play.title
    assert len(play.scenes) >= 9
    assert {scene.act for scene in play.scenes} - {0} == {1, 2, 3, 4, 5}
    assert all(scene.speeches for scene in play.scenes)
    assert [scene.number for scene in play.scenes].count(0) <= 6


def test_no_markup_is_left(source: Source) -> None:
    for speech in speeches(source.parse()):
        assert speech.text.strip() == speech.text != ""
        assert not re.search(r"[_*#\\\[\]]|&\w+;", speech.speaker + speech.text)


def test_no_word_is_lost_and_none_is_added(source: Source) -> None:
    spoken = sum(count_words(speech.text) for speech in speeches(source.parse()))
    printed = sum(map(count_words, unmarked_lines(source.read())))
    assert printed - spoken == PRINTED_ONLY.get(source.slug, 0)
