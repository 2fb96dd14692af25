from __future__ import annotations

import dataclasses
import functools
import io
import re

import PIL.Image
import pytest

import ticketguard as tg
from tests.verification.stolen import of_densities
from ticketguard.marking.choosing import MarkChoice, choose_marks
from ticketguard.reporting.mark_choice import choice_document, choice_lines, choice_picture, command_line


@functools.cache
def chosen() -> MarkChoice:
    return choose_marks(of_densities(0.15, 0.06, 0.4), survive=["pruned-50", "pruned-30+regrown-20"])


@functools.cache
def not_chosen() -> MarkChoice:
    return choose_marks(of_densities(0.15, 0.06, 0.4), survive=["pruned-99"])


def test_lines_say_what_was_chosen_and_how_to_embed_it() -> None:
    lines = choice_lines(chosen(), file="a ticket.safetensors")
    settings = dict(chosen().chosen.size.settings)  # type: ignore[union-attr]
    share, secret_share = settings["share"], settings["secret_share"]
    assert lines[:2] == [
        f"CHOSEN: planted-graph with share {share:g}, secret_share {secret_share:g}, the smallest that survives "
        "pruned-50, pruned-30+regrown-20",
        f"  ticketguard embed 'a ticket.safetensors' --owner owner.key --share {share:g} "
        f"--mark-option planted-graph.secret_share={secret_share:g}",
    ]


def test_the_table_has_the_chosen_row_and_brackets_where_too_little_is_left() -> None:
    choice = chosen()
    lines = choice_lines(choice, file="t")
    header, ruler, *rows = lines[3 : lines.index("", 3)]
    columns = re.split(r" {2,}", header.strip())
    assert columns[:4] == ["share", "secret share", "moved", "AUC"]
    assert {"pruned-50*", "pruned-30+regrown-20*", "pruned-80", "untouched"} <= set(columns)
    assert set(ruler) == {"-", " "}
    marked = [row for row in rows if row.startswith(">")]
    assert len(marked) == 1
    assert len(rows) == 10
    assert "-0" not in " ".join(rows).replace("-0.", "").split()
    for sized, row in zip(choice.sizes[-len(rows) :], rows, strict=True):
        cells = row.removeprefix(">").split()
        assert [float(cells[0]), float(cells[1])] == list(sized.size.settings.values())
        for cell, seen in zip(cells[4:], sized.foreseen, strict=True):
            assert (cell[0] == "(") == (not choice.keeps(seen))
            assert float(cell.strip("()")) == round(seen.unlucky_log10_p)


def test_what_the_numbers_are_is_told_below() -> None:
    text = " ".join(choice_lines(chosen(), file="t"))
    assert "19 copies in 20" in text
    assert "20 looks are paid for; at a level of 64 bits for 2 marks, p of each has to be 10^-19.6 or less" in text
    assert "less than 1.5 times that evidence" in text
    assert "Measured: share 0.05 with secret_share 0.03" in text
    one = choose_marks(of_densities(0.15, 0.06, 0.4), marks=[tg.PlantedGraph()], level_bits=100, survive=[])
    lines = choice_lines(one, file="t")
    assert "the smallest that survives untouched" in lines[0]
    assert lines[1].endswith(" --marks planted-graph --level-bits 100")
    assert "for 1 mark, p" in " ".join(lines)


def test_what_a_search_would_plant_besides_is_told_below_and_in_the_document() -> None:
    choice, text = chosen(), " ".join(choice_lines(chosen(), file="t"))
    (name, seen), *others = choice.beside.items()
    assert (name, others) == ("keyed-signs", [])
    assert [foresight.theft for foresight in seen] == [foresight.theft for foresight in choice.sizes[0].foreseen]
    left = ", ".join(f"{one.theft.name} {round(one.unlucky_log10_p)}" for one in seen)
    assert f"of those 19 copies in 20 would show, as log10 p: {left}." in text
    (told,) = choice_document(choice, file="t")["beside"]
    assert told["mark"] == name
    assert [(one["theft"], one["unlucky_log10_p"]) for one in told["foreseen"]] == [
        (one.theft.name, one.unlucky_log10_p) for one in seen
    ]


def test_a_ticket_that_nothing_survives_in_is_told() -> None:
    lines = choice_lines(not_chosen(), file="t")
    assert lines[0].startswith("NOT CHOSEN: no planted-graph keeps a level of 64 bits in this ticket: with share 0.3")
    assert not any(line.startswith(">") for line in lines)
    assert len(lines[2 : lines.index("", 2)]) == 12
    empty = dataclasses.replace(not_chosen(), sizes=())
    assert [line.split(":")[0] for line in choice_lines(empty, file="t")][:2] == ["NOT CHOSEN", "Measured"]


def test_the_document_has_every_size() -> None:
    document = choice_document(chosen(), file="t")
    assert document["chosen"] == dict(chosen().chosen.size.settings)  # type: ignore[union-attr]
    assert document["command"] == command_line(chosen(), file="t")
    assert len(document["sizes"]) == len(chosen().sizes)
    assert [size["keeps"] for size in document["sizes"]][-4:] == [True] * 4
    nothing = choice_document(not_chosen(), file="t")
    assert nothing["chosen"] is nothing["command"] is None


@pytest.mark.parametrize("make", [chosen, not_chosen])
def test_the_trade_is_drawn(make: functools._lru_cache_wrapper[MarkChoice]) -> None:
    with PIL.Image.open(io.BytesIO(choice_picture(make(), title="a $ticket$"))) as image:
        assert image.width > 800
        colours = {colour for _, colour in image.convert("RGB").getcolors(maxcolors=100_000) or []}
    # The chosen size's band, over white.
    assert any(red > 240 and 200 < green < 220 and 205 < blue < 225 for red, green, blue in colours) == (make is chosen)  # type: ignore[misc]
