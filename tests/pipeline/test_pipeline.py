from __future__ import annotations

import dataclasses
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import ticketguard as tg
from ticketguard.errors import CapacityError, ConfigurationError, TensorError
from ticketguard.models import build_model
from ticketguard.training import NoProgress

from .conftest import MODEL_OPTIONS


def test_a_ticket_too_small_for_its_mark_is_refused_before_training(owner: tg.Owner) -> None:
    generator = np.random.default_rng(0)
    kept = generator.random((20, 30)) < 0.1
    weights = {"fc.weight": np.where(kept, generator.random((20, 30)), 0.0).astype(np.float32)}
    with pytest.raises(CapacityError, match="the whole ticket"):
        tg.prepare(tg.import_checkpoint(weights), owner=owner)


class Steps(NoProgress):
    total = 0

    def begin(self, description: str, total: int) -> None:
        self.total = total


def test_embedding_changes_the_data_options_it_is_given(ticket: tg.Ticket, owner: tg.Owner) -> None:
    steps = Steps()
    options = {"train_limit": 2 * ticket.info.training["batch_size"]}
    marks, training = [tg.PlantedGraph()], {"epochs": 3}
    tg.embed(ticket, owner=owner, marks=marks, training=training, data_options=options, progress=steps)
    assert steps.total == 2 * 3


def test_too_few_triggers_for_the_level_are_refused(ticket: tg.Ticket, owner: tg.Owner, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="20 triggers of 10 classes cannot reach 2.-64 .* use 21 or more"):
        tg.embed(ticket, owner=owner, marks=[tg.TriggerSet(20)], workdir=tmp_path)
    assert not list(tmp_path.iterdir())  # nothing began that could be resumed
    tg.prepare(ticket, owner=owner, marks=[tg.TriggerSet(21)])


def test_a_ticket_without_layers_has_no_room_for_a_mark(owner: tg.Owner) -> None:
    empty = tg.Ticket(mask=tg.Mask(layers={}), weights={}, rewind_weights=None, info=tg.TicketInfo(method="random"))
    with pytest.raises(CapacityError):
        tg.prepare(empty, owner=owner, marks=[tg.PlantedGraph()])


def test_marks_are_named_once(ticket: tg.Ticket, owner: tg.Owner) -> None:
    with pytest.raises(ConfigurationError, match="each scheme once"):
        tg.prepare(ticket, owner=owner, marks=[tg.PlantedGraph(), tg.PlantedGraph()])
    with pytest.raises(ConfigurationError, match="expected 1 to 256 bits"):
        tg.prepare(ticket, owner=owner, level_bits=0)


class Stranger(nn.Module):
    """A net that the toolkit has never seen."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 24, 3), nn.BatchNorm2d(24), nn.ReLU(), nn.Conv2d(24, 48, 3), nn.ReLU()
        )
        self.answer = nn.Linear(48 * 16, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.answer(self.features(images).flatten(1))
        return logits


def sparse_stranger() -> Stranger:
    torch.manual_seed(1)
    model = Stranger()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(parameter.abs() >= parameter.abs().flatten().quantile(0.8))
    return model


def test_marks_are_embedded_in_a_loop_that_is_not_ours(owner: tg.Owner) -> None:
    model = sparse_stranger()
    ticket = tg.import_checkpoint(model.state_dict(), classes=5, input_shape=(1, 8, 8))
    plan = tg.prepare(ticket, owner=owner, marks=[tg.PlantedGraph(), tg.TriggerSet(count=40)], model=model)
    wrapped = nn.Sequential()
    wrapped.add_module("module", model)  # what data-parallel wrappers do to names
    plan.start(wrapped)
    optimizer = torch.optim.Adam(wrapped.parameters(), lr=3e-3)
    for _ in range(300):
        extra = plan.extra_batch(torch.device("cpu"))
        assert extra is not None
        optimizer.zero_grad()
        nn.functional.cross_entropy(wrapped(extra[0]), extra[1]).backward()
        optimizer.step()
        plan.after_step(wrapped)
    marked, credential = plan.finish(wrapped)
    assert marked.mask.density == pytest.approx(ticket.mask.density)
    assert tg.verify(tg.Checkpoint(model.state_dict()), credential).status == "supported"
    model.eval()
    predict = tg.CallablePredictor(lambda inputs: model(torch.from_numpy(inputs)).detach().numpy())
    assert tg.verify(predict, credential).status == "supported"
    (innocent,) = tg.verify(tg.Checkpoint(Stranger().state_dict()), credential).evidence
    assert innocent.status == "inconclusive"
    assert "could not be aligned" in innocent.details["why"][0]


def test_a_loop_that_left_the_triggers_out_is_warned(ticket: tg.Ticket, owner: tg.Owner) -> None:
    plan = tg.prepare(ticket, owner=owner)
    network = build_model("mlp", options=MODEL_OPTIONS, seed=0)
    plan.start(network)
    plan.after_step(network)
    told = (
        "carries [0-9]+% of the trigger-set: a copy's answers alone may not prove ownership, while the marks in its "
        r"weights do not depend on them; train longer \(more epochs\), and append extra_batch to the batches$"
    )
    with pytest.warns(tg.TicketguardWarning, match=told):
        plan.finish(network)
    plan.extra_batch(torch.device("cpu"))
    with pytest.warns(tg.TicketguardWarning, match=r"train longer \(more epochs\)$"):
        plan.finish(network)
    resumed = tg.prepare(ticket, owner=owner, marks=[tg.TriggerSet()])
    resumed.start(network)
    resumed.seek(5)
    with pytest.warns(tg.TicketguardWarning, match=r"alone may not prove ownership; train longer \(more epochs\)$"):
        resumed.finish(network)


def test_another_model_than_the_tickets_is_named(owner: tg.Owner) -> None:
    ticket = tg.import_checkpoint(sparse_stranger().state_dict())
    plan = tg.prepare(ticket, owner=owner, marks=[tg.PlantedGraph()])
    other = build_model("mlp", options=MODEL_OPTIONS, seed=0)
    with pytest.raises(TensorError, match="is in the model but not in the ticket"):
        plan.start(other)
    with pytest.raises(TensorError, match="is masked but the model has no weights of its shape"):
        plan.after_step(other)


def test_a_model_that_diverged_is_not_released(ticket: tg.Ticket, owner: tg.Owner) -> None:
    plan = tg.prepare(ticket, owner=owner, marks=[tg.PlantedGraph()])
    network = build_model("mlp", options=MODEL_OPTIONS, seed=0)
    plan.start(network)
    with torch.no_grad():
        next(network.parameters()).fill_(float("nan"))
    with pytest.raises(TensorError, match="NaN or infinite"):
        plan.finish(network)


def test_a_model_that_cannot_be_traced_is_marked_without_channel_groups(ticket: tg.Ticket, owner: tg.Owner) -> None:
    class Closed(nn.Sequential):
        def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
            raise ValueError("not here")

    closed = Closed(*build_model("mlp", options=MODEL_OPTIONS, seed=0).children())
    with pytest.raises(TensorError, match="is masked but the model has no weights of its shape"):
        tg.prepare(ticket, owner=owner, marks=[tg.PlantedGraph()], model=nn.Linear(7, 7))
    with pytest.warns(tg.TicketguardWarning, match=r"may not be recognised, .* \(1, 1, 8, 8\): not here: "):
        plan = tg.prepare(ticket, owner=owner, marks=[tg.PlantedGraph()], model=closed)
    network = build_model("mlp", options=MODEL_OPTIONS, seed=0)
    plan.start(network)
    marked, credential = plan.finish(network)
    assert credential.vault.channel_groups is None
    assert "channel_groups_digest" not in credential.mark("planted-graph").parameters
    evidence = tg.verify(tg.Checkpoint(dict(marked.weights)), credential).evidence[0]
    assert (evidence.status, evidence.details["channel_groups"]) == ("supported", 0)


def test_a_finished_embedding_resumes_to_the_same_credential_until_its_folder_is_deleted(
    ticket: tg.Ticket, owner: tg.Owner, tmp_path: Path
) -> None:
    """Whoever could not save the credential, for lack of space say, has lost nothing."""

    def embed(*, resume: bool) -> tuple[tg.Ticket, tg.Credential]:
        marks, workdir = [tg.PlantedGraph()], tmp_path / "work"
        return tg.embed(ticket, owner=owner, marks=marks, training={"epochs": 1}, workdir=workdir, resume=resume)

    first, credential = embed(resume=False)
    (tmp_path / "work" / "embed.created").write_text("2001-02-03T04:05:06+00:00")
    second, again = embed(resume=True)
    assert credential.vault.secret == again.vault.secret
    assert again.claim == dataclasses.replace(credential.claim, created="2001-02-03T04:05:06Z")
    assert all((first.weights[name] == array).all() for name, array in second.weights.items())
    assert stat.S_IMODE((tmp_path / "work").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "work").iterdir()} == {0o600}


def test_another_secret_than_the_kept_one_does_not_go_on(ticket: tg.Ticket, owner: tg.Owner, tmp_path: Path) -> None:
    (tmp_path / "embed.secret").write_bytes(bytes(32))
    with pytest.raises(ConfigurationError, match="does not have the secret that was given"):
        tg.embed(ticket, owner=owner, secret=bytes(range(32)), workdir=tmp_path, resume=True)


class Interrupted(NoProgress):
    def begin(self, description: str, total: int) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize("change", [{"count": 40}, {"grid": 5}, {"per_batch": 4}])
def test_other_triggers_do_not_go_on_with_a_run(
    ticket: tg.Ticket, owner: tg.Owner, tmp_path: Path, change: dict[str, int]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        tg.embed(ticket, owner=owner, marks=[tg.TriggerSet()], workdir=tmp_path, progress=Interrupted())
    with pytest.raises(KeyboardInterrupt):
        tg.embed(ticket, owner=owner, marks=[tg.TriggerSet()], workdir=tmp_path, resume=True, progress=Interrupted())
    with pytest.raises(ConfigurationError, match="embeds other marks, or another owner's"):
        tg.embed(
            ticket,
            owner=owner,
            marks=[tg.TriggerSet(**change)],
            workdir=tmp_path,
            resume=True,
            progress=Interrupted(),
        )


def test_a_ticket_stands_for_the_weights_it_is_trained_from(ticket: tg.Ticket, tmp_path: Path) -> None:
    ticket.save(tmp_path / "ticket.safetensors")
    found = [
        tg.find("mlp", method="magnitude", density=0.3, rewind=source, data="digits", model_options=MODEL_OPTIONS,
                training={"epochs": 1})
        for source in (ticket, tmp_path / "ticket.safetensors", ticket.rewind_weights)
    ]  # fmt: skip
    assert ticket.rewind_weights is not None
    for one in found:
        assert one.rewind_weights is not None
        assert all(np.array_equal(one.rewind_weights[name], array) for name, array in ticket.rewind_weights.items())


def test_a_sparse_ticket_is_no_dense_network(ticket: tg.Ticket, tmp_path: Path) -> None:
    ticket.save(tmp_path / "ticket.safetensors")
    for source in (ticket, tmp_path / "ticket.safetensors"):
        with pytest.raises(ConfigurationError, match="are a ticket of density .*, expected a dense network"):
            tg.find("mlp", data="digits", method="jackpot", density=0.3, pretrained=source)


def test_a_control_is_trained_as_its_ticket_was(tmp_path: Path) -> None:
    path = tmp_path / "ticket.safetensors"
    tg.find("mlp", data="digits", method="random", density=0.3, training={"epochs": 2, "learning_rate": 0.03}).save(
        path
    )
    control = tg.find("mlp", data="digits", method="scratch_e", method_options={"ticket": str(path)})
    assert (control.info.training["epochs"], control.info.training["learning_rate"]) == (2, 0.03)
