"""What marks show to a person: a QR code, embedded, verified, and written where a phone can scan it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import zxingcpp
from PIL import Image

import ticketguard as tg
from tests.verification.coded import TICKET, pruned
from ticketguard.cli.marking import named_marks
from ticketguard.credentials.credential import Credential
from ticketguard.credentials.keys import Owner
from ticketguard.errors import ConfigurationError
from ticketguard.marking.commitments import claim_about
from ticketguard.marking.during_search import SearchPlanting
from ticketguard.marking.plan import prepare
from ticketguard.verification.pictures import UNREAD
from ticketguard.verification.registry import SCHEMES

from .conftest import PASSPHRASE, Files, Run, validate

TEXT = "ACME-1"


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A marked ticket with its claim and vault, as a training of no steps leaves it, and a thief's copy."""
    folder = tmp_path_factory.mktemp("story")
    owner = Owner.generate("Ada")
    owner.save(folder / "owner.key", PASSPHRASE)
    plan = prepare(TICKET, owner=owner, marks=[tg.PlantedGraph(), tg.QrCode(text=TEXT)])
    weights = dict(plan._start.weights)
    marked = tg.Ticket(mask=plan.mask, weights=weights, rewind_weights=None, info=TICKET.info)
    marked.save(folder / "marked.safetensors")
    stolen = pruned(weights, 0.6)
    tg.Ticket(
        mask=tg.Mask(layers={name: layer != 0 for name, layer in stolen.items()}),
        weights=stolen,
        rewind_weights=None,
        info=TICKET.info,
    ).save(folder / "stolen.safetensors")
    TICKET.save(folder / "unmarked.safetensors")
    credential = Credential(claim=claim_about(marked, plan.claims, owner=owner), vault=plan._vault)
    credential.save(folder / "claim.json", folder / "vault.age", owner, passphrase=PASSPHRASE)
    return folder


def opened(story: Path) -> tuple[object, ...]:
    return ("--claim", story / "claim.json", "--vault", story / "vault.age")


def scanned(path: Path) -> list[str]:
    return [found.text for found in zxingcpp.read_barcodes(Image.open(path))]


def test_verify_writes_a_picture_that_can_be_scanned(run: Run, story: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    result = run("verify", story / "stolen.safetensors", *opened(story), "--pictures", folder, "--json")
    verdict = json.loads(result.stdout)
    validate(verdict, "verdict")
    code = verdict["evidence"][1]
    assert (code["mark"], code["status"]) == ("qr-code", "supported")
    text = code["details"]["text_of_the_claim"]
    assert text.startswith(f"{TEXT}:")
    assert code["details"]["decoded"] == text
    assert code["details"]["decoded_raw"] == "nothing decoded"
    raw, cleaned = folder / "qr-code-raw.png", folder / "qr-code-cleaned.png"
    assert f"pictures: {raw}, {cleaned}" in result.stderr
    assert scanned(cleaned) == [text]
    assert scanned(raw) == []
    picture = np.array(Image.open(cleaned))
    # 21 modules and a quiet zone of four, twelve pixels each.
    assert picture.shape == (348, 348)
    assert picture[:48].all()
    assert picture[:, :48].all()


def test_inspect_writes_what_an_untouched_copy_shows(run: Run, story: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    asked = ("inspect", story / "marked.safetensors", *opened(story), "--pictures", folder)
    told = run(*asked).stdout
    raw, cleaned = (scanned(folder / f"qr-code-{name}.png") for name in ("raw", "cleaned"))
    assert raw == cleaned
    assert raw[0].startswith(f"{TEXT}:")
    assert f"decoded {raw[0]}" in told
    (folder / "qr-code-raw.png").unlink()
    document = json.loads(run(*asked, "--force", "--json").stdout)
    validate(document, "inspect")
    files = [str(folder / f"qr-code-{name}.png") for name in ("raw", "cleaned")]
    assert document["pictures"] == [{"mark": "qr-code", "files": files, "decoded": raw[0]}]
    assert scanned(folder / "qr-code-raw.png") == raw


def test_pictures_go_into_a_new_folder_and_belong_to_a_suspect(run: Run, story: Path, tmp_path: Path) -> None:
    marked = story / "marked.safetensors"
    for command in ("verify", "inspect"):
        full = run(command, marked, *opened(story), "--pictures", story, code=2)
        assert "holds files already: name a new folder for the pictures" in full.stderr
        assert ("--force" in full.stderr) == (command == "inspect")
        file = run(command, marked, *opened(story), "--pictures", marked, code=2)
        assert "is not a folder: name a new folder for the pictures" in file.stderr
    alone = run("inspect", marked, "--pictures", tmp_path / "new", code=2)
    assert "--pictures goes with --claim and --vault." in alone.stderr
    neither = run("inspect", marked, *opened(story), code=2)
    assert "--claim and --vault go together, with --picture or --pictures." in neither.stderr
    claim = run("inspect", story / "claim.json", *opened(story), "--pictures", tmp_path / "new", code=2)
    assert "is a claim and has no weights to read" in claim.stderr


def test_the_unmarked_ticket_shows_nothing_that_is_read(run: Run, story: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    result = run("verify", story / "unmarked.safetensors", *opened(story), "--pictures", folder, code=1)
    assert re.search(r"decoded raw +nothing decoded\n", result.stdout)
    assert re.search(rf"text of the claim +{TEXT}:", result.stdout)
    assert scanned(folder / "qr-code-raw.png") == []
    # Of what was not read nothing is made up: it would look like a code.
    picture = np.array(Image.open(folder / "qr-code-raw.png"))
    assert set(np.unique(picture)) == {0, UNREAD, 255}
    assert np.count_nonzero(picture == UNREAD) / 144 == int(re.findall(r"modules unread +([0-9]+)", result.stdout)[0])
    assert np.count_nonzero(picture == UNREAD) / 144 > 150


def test_a_claim_without_a_picture_says_so(run: Run, tmp_path: Path, files: Files) -> None:
    own = ("--claim", files.claim, "--vault", files.vault)
    result = run("verify", files.marked, *own, "--pictures", tmp_path / "new")
    assert "none of the claim's marks shows a picture" in result.stderr


def test_the_text_has_an_option_of_its_own(run: Run, story: Path, tmp_path: Path) -> None:
    common = ("embed", story / "unmarked.safetensors", "--owner", story / "owner.key", "--marks", "qr-code")
    files = ("--out", tmp_path / "m.safetensors", "--claim", tmp_path / "c.json", "--vault", tmp_path / "v.age")
    result = run(*common, *files, "--qr-text", "acme", code=2)
    assert "QR code: text has 'acem', expected only capital letters, digits, spaces and $%*+-./:" in result.stderr
    (mark,) = named_marks("qr-code", (), qr_text="ACME 12", share=0.5)
    assert mark == tg.QrCode(text="ACME 12")


@pytest.mark.parametrize(
    ("marks", "option", "value", "needed"),
    [
        (None, "--qr-text", "ADA 7", "qr-code"),
        ("planted-graph", "--triggers", 50, "trigger-set"),
        ("trigger-set", "--share", 0.1, "planted-graph"),
    ],
)
@pytest.mark.parametrize("command", ["embed", "find"])
def test_an_option_of_a_mark_that_is_not_chosen_is_refused(
    run: Run, story: Path, tmp_path: Path, command: str, marks: str | None, option: str, value: object, needed: str
) -> None:
    """It was ignored, and the mark was missing from a trained ticket."""
    source = (story / "unmarked.safetensors",) if command == "embed" else ("--model", "mlp", "--data", "digits")
    files = ("--out", tmp_path / "m.safetensors", "--claim", tmp_path / "c.json", "--vault", tmp_path / "v.age")
    chosen = () if marks is None else ("--marks", marks)
    result = run(command, *source, "--owner", story / "owner.key", *files, *chosen, option, value, code=2)
    assert f"{option} sets up {needed}, which is not among --marks " in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_lists_the_marks_that_there_are(run: Run) -> None:
    for command in ("embed", "find", "plan"):
        told = " ".join(run(command, "--help").stdout.split())
        assert f"Marks, separated by commas, of {', '.join(SCHEMES)}." in told.replace("- ", "-")


def test_a_code_is_not_planted_in_a_search() -> None:
    for marks in ([tg.QrCode()], [tg.PlantedGraph(), tg.QrCode()]):
        with pytest.raises(
            ConfigurationError, match="mark 'qr-code' moves edges of a ticket .* then mark it with embed"
        ):
            SearchPlanting(owner=Owner.generate("Ada"), info=TICKET.info, density=0.1, marks=marks)


def test_plan_names_the_smallest_code_that_is_decoded(run: Run, story: Path, tmp_path: Path) -> None:
    asked = ("plan", story / "unmarked.safetensors", "--marks", "qr-code", "--mark-option", f"qr-code.text={TEXT}")
    document = json.loads(run(*asked, "--survive", "pruned-50", "--json", "--picture", tmp_path / "p.png").stdout)
    validate(document, "plan")
    assert document["chosen"] == {"qr_version": 2, "correction": 30, "pairs": 1}
    assert "--mark-option qr-code.pairs=1 --qr-text ACME-1 --marks qr-code" in document["command"]
    sizes = [size["moved_edges"] for size in document["sizes"]]
    assert sizes == sorted(sizes)
    none = run(*asked, "--survive", "pruned-95", code=1).stdout
    assert "and a picture that 0% decode" in none
    assert "In percent: copies whose picture is decoded, which has to be 99%." in none
