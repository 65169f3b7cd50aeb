"""A checkpoint gives the same features whatever the eps of its norms and of the model's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from engine.checkpoint import io, load_weights, read_weights
from engine.checkpoint.average import average
from engine.checkpoint.convert import checkpoint_of
from engine.checkpoint.foreign import FORMATS
from engine.checkpoint.io import FORMAT
from engine.checkpoint.norm_eps import stored_eps
from engine.checkpoint.publish import publish
from engine.layers.norm import FrozenBatchNorm, SyncBatchNorm

CHANNELS = 6
KINDS = {"BN": nn.BatchNorm2d, "SyncBN": SyncBatchNorm, "FrozenBN": FrozenBatchNorm, "theirs": FrozenBatchNorm2d}


class Small(nn.Module):
    """A body of a convolution and a norm, under the names of a detector."""

    def __init__(self, kind: str, eps: float) -> None:
        super().__init__()
        norm = KINDS[kind](CHANNELS)
        norm.eps = eps
        conv = nn.Conv2d(3, CHANNELS, 3, bias=False)
        self.backbone = nn.ModuleDict({"body": nn.Sequential(conv, norm)})
        self.eval()

    @property
    def norm(self) -> nn.Module:
        return self.backbone["body"][1]

    def features(self) -> Tensor:
        images = torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            return self.backbone["body"](images)


def trained(kind: str, eps: float, scale: float, seed: int = 0) -> Small:
    """With statistics around `scale`."""
    model, random = Small(kind, eps), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, value in [*model.norm.named_parameters(), *model.norm.named_buffers()]:
            if value.is_floating_point():
                value.copy_(torch.rand(CHANNELS, generator=random) + 0.5)
        model.norm.running_var.mul_(scale)
    return model


def checkpoint(model: Small, **content: object) -> dict[str, object]:
    return {"format": FORMAT, "model": model.state_dict(), "class_names": [], **content}


def saved(path: Path, model: Small) -> Path:
    io.save(path, checkpoint(model, norm_eps=stored_eps(model)))
    return path


def assert_same(model: Small, other: Small) -> None:
    torch.testing.assert_close(other.features(), model.features(), rtol=1e-4, atol=1e-4)


EPS = st.one_of(st.sampled_from([0.0, 1e-6, 1e-5, 1e-3]), st.floats(1e-8, 0.1))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(list(KINDS)), EPS, st.sampled_from(list(KINDS)), EPS, st.floats(1e-4, 10))
def test_a_checkpoint_of_ours_gives_the_same_features(
    tmp_path_factory: pytest.TempPathFactory, kind: str, eps: float, other_kind: str, other_eps: float, scale: float
) -> None:
    """Also where the model's eps is larger than a variance of the file."""
    path = tmp_path_factory.getbasetemp() / "eps.pth"
    model, other = trained(kind, eps, scale), Small(other_kind, other_eps)
    assert load_weights(other, saved(path, model)).ok
    assert_same(model, other)
    assert (other.norm.running_var >= 0).all()
    if eps == other_eps:
        assert torch.equal(other.norm.running_var, model.norm.running_var)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_published_averaged_and_converted_checkpoints_keep_it(tmp_path: Path, suffix: str) -> None:
    model = trained("FrozenBN", 0.003, 0.02)
    path = saved(tmp_path / f"model{suffix}", model)
    published = publish(path, tmp_path / f"new{suffix}")
    io.save(tmp_path / f"mean{suffix}", average([path, path]))
    io.save(tmp_path / f"converted{suffix}", checkpoint_of(read_weights(path)))
    for each in (path, published, tmp_path / f"mean{suffix}", tmp_path / f"converted{suffix}"):
        assert io.load(each)["norm_eps"] == {"backbone.body.1": 0.003}
        other = Small("BN", 1e-5)
        load_weights(other, each)
        assert_same(model, other)


def test_checkpoints_with_different_eps_are_not_averaged(tmp_path: Path) -> None:
    paths = [saved(tmp_path / f"{eps}.pth", trained("BN", eps, 1.0)) for eps in (1e-3, 1e-5)]
    with pytest.raises(io.InputError, match=r"its norm_eps are \{\}, not \{'backbone.body.1': 0.001\}"):
        average(paths)


@pytest.mark.parametrize(
    ("kind", "eps", "changes"),
    [
        ("BN", 1e-5, 0.0),  # trainable in both
        ("BN", 1e-3, 0.0),
        ("FrozenBN", 0.0, 1e-5),
        ("FrozenBN", 1e-3, 0.0),  # chosen for these weights
        ("theirs", 1e-5, 0.0),
    ],
)
@pytest.mark.parametrize("stored", ["checkpoint", "plain"])
def test_a_file_that_says_nothing(tmp_path: Path, stored: str, kind: str, eps: float, changes: float) -> None:
    """It was trained with 1e-5, unless the layer has an eps that is not usual."""
    file, model = trained("BN", 1e-5, 0.5), Small(kind, eps)
    content = checkpoint(file) if stored == "checkpoint" else file.state_dict()
    torch.save(content, tmp_path / "m.pth")
    report = load_weights(model, tmp_path / "m.pth")
    assert report.format == {"checkpoint": "engine", "plain": "plain"}[stored]
    torch.testing.assert_close(model.norm.running_var, file.norm.running_var + changes, rtol=0, atol=1e-7)


def test_an_old_checkpoint_of_frozen_norms_in_a_trainable_model(tmp_path: Path) -> None:
    file, model = trained("FrozenBN", 0.0, 0.5), Small("BN", 1e-5)
    torch.save(checkpoint(file), tmp_path / "m.pth")
    load_weights(model, tmp_path / "m.pth")
    torch.testing.assert_close(model.norm.running_var, file.norm.running_var - 1e-5, rtol=0, atol=1e-7)


class _Lite:
    """A foreign format with an eps of its own."""

    SIGNATURE = r"lite\."
    NORM_EPS = 1e-3

    def translate(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name.replace("lite.", "backbone.body."): tensor for name, tensor in tensors.items()}


@pytest.fixture
def lite() -> object:
    FORMATS.register("lite of this test")(_Lite)
    yield
    FORMATS._obj_map.pop("lite of this test")


@pytest.mark.usefixtures("lite")
@pytest.mark.parametrize(("kind", "eps"), [("BN", 1e-3), ("BN", 1e-5), ("FrozenBN", 0.0), ("FrozenBN", 1e-3)])
def test_a_format_states_its_own(tmp_path: Path, kind: str, eps: float) -> None:
    """Also in the checkpoint that the file is converted into."""
    file = trained("BN", 1e-3, 0.01)
    tensors = {name.replace("backbone.body.", "lite."): each for name, each in file.state_dict().items()}
    torch.save(tensors, tmp_path / "lite.pth")
    io.save(tmp_path / "converted.pth", checkpoint_of(read_weights(tmp_path / "lite.pth")))
    for path in ("lite.pth", "converted.pth"):
        model = Small(kind, eps)
        load_weights(model, tmp_path / path)
        assert_same(file, model)


def test_group_norm_with_another_eps_is_told(tmp_path: Path) -> None:
    def body(eps: float) -> nn.Module:
        return nn.ModuleDict({"backbone": nn.ModuleDict({"body": nn.GroupNorm(2, CHANNELS, eps=eps)})})

    path = tmp_path / "gn.pth"
    io.save(path, {"format": FORMAT, "model": body(1e-6).state_dict(), "norm_eps": stored_eps(body(1e-6))})
    assert load_weights(body(1e-6), path).notes == []
    (note,) = load_weights(body(1e-5), path).notes
    assert "backbone.body: 1e-05, in the file 1e-06" in note
    io.save(path, {"format": FORMAT, "model": body(1e-5).state_dict()})
    assert load_weights(body(1e-6), path).notes == []  # an old file says nothing


@pytest.mark.parametrize("value", [{"a": -1.0}, {"a": "small"}, {"a": float("nan")}, [1e-3], {1: 1e-3}])
def test_a_damaged_statement_is_refused(tmp_path: Path, value: object) -> None:
    torch.save(checkpoint(Small("BN", 1e-5), norm_eps=value), tmp_path / "m.pth")
    with pytest.raises(io.InputError, match="its norm_eps must be numbers from 0 on"):
        read_weights(tmp_path / "m.pth")
