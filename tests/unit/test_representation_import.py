"""Checkpoints as the method's authors save them, made here of classes with the same names and attributes."""

from __future__ import annotations

import pickle
import sys
import zipfile
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from comir_batch.cli.app import app
from comir_batch.core.errors import ModelError
from comir_batch.core.geometry import Region
from comir_batch.representation.import_original import Facts, import_original
from comir_batch.representation.inert_pickle import Record, read_checkpoint, tensor
from comir_batch.representation.normalise import Range
from comir_batch.representation.store import find_model
from comir_batch.representation.weights import load

# The older format keeps the source code of classes, where it finds it.
pytestmark = pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")

GROWTH = 12
FACTS = Facts("authors", ("bf", "shg"), 0.5)


class Layer(nn.Module):
    def __init__(self, width, dropout):
        super().__init__()
        self.dropout = dropout
        self.batchnorm = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(width, GROWTH, 3, padding=1)

    def forward(self, features):
        return self.conv(self.relu(self.batchnorm(torch.cat(features, 1))))


class Block(nn.Module):
    def __init__(self, width, layers, dropout, upsample):
        super().__init__()
        self.layers = nn.ModuleList([Layer(width + index * GROWTH, dropout) for index in range(layers)])
        self.upsample = upsample

    def forward(self, features):
        found = [features]
        for layer in self.layers:
            found.append(layer(found))
        return torch.cat(found[1:] if self.upsample else found, 1)


class Down(nn.Sequential):
    def __init__(self, width, kept, dropout, pool):
        super().__init__()
        self.add_module("batchnorm", nn.BatchNorm2d(width))
        self.add_module("relu", nn.ReLU(inplace=True))
        self.add_module("conv", nn.Conv2d(width, kept, 1))
        if dropout:
            self.add_module("dropout", nn.Dropout2d(0.2))
        self.add_module("pool", pool)


class Up(nn.Module):
    def __init__(self, width, deconv):
        super().__init__()
        conv = nn.ConvTranspose2d(width, width, 3, 2) if deconv else nn.Conv2d(width, width, 3, padding=1)
        self.upsampling_layer = nn.Sequential(*([] if deconv else [nn.UpsamplingNearest2d(scale_factor=2)]), conv)
        self.upsampling_layer.append(nn.ReLU(inplace=True))

    def forward(self, features, skip):
        return torch.cat([skip, self.upsampling_layer(features)], 1)


class ModNet(nn.Module):
    """The parts are registered in the authors' order, which is not ours."""

    def __init__(self, channels, latent=1, **other):
        super().__init__()
        wanted = {"init": 16, "blocks": (2, 2, 2), "bottleneck": 3, "compression": 1.0, "dropout": 0.0} | other
        self.log_transform = wanted.get("log", False)
        self.activation_func = None
        width, skips = wanted["init"], []
        self.conv_init = nn.Conv2d(channels, width, 3, padding=1, stride=wanted.get("stride", 1))
        self.layers_down, self.transitions_down = nn.ModuleList(), nn.ModuleList()
        for layers in wanted["blocks"]:
            self.layers_down.append(Block(width, layers, wanted["dropout"], upsample=False))
            skips.append(width + GROWTH * layers)
            width = int(skips[-1] * wanted["compression"])
            pool = wanted.get("pool", nn.MaxPool2d(2))
            self.transitions_down.append(Down(skips[-1], width, wanted["dropout"], pool))
        self.bottleneck = Block(width, wanted["bottleneck"], wanted["dropout"], upsample=True)
        new = GROWTH * wanted["bottleneck"]
        self.layers_up, self.transitions_up = nn.ModuleList(), nn.ModuleList()
        for index, layers in enumerate(wanted["blocks"]):
            self.transitions_up.append(Up(new, wanted.get("deconv", False)))
            last = index == len(wanted["blocks"]) - 1
            width = skips.pop() + new
            self.layers_up.append(Block(width, layers, wanted["dropout"], upsample=not last))
            new = GROWTH * layers
        self.final_conv = nn.Conv2d(width + new, latent, 1, bias=wanted.get("bias", False))

    def forward(self, images):
        features, skips = self.conv_init(images), []
        for block, transition in zip(self.layers_down, self.transitions_down, strict=True):
            skips.append(block(features))
            features = transition(skips[-1])
        features = self.bottleneck(features)
        for transition, block in zip(self.transitions_up, self.layers_up, strict=True):
            features = block(transition(features, skips.pop()))
        return self.final_conv(features)


class Evil:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.fixture(autouse=True)
def _as_pickled(monkeypatch):
    """Classes are pickled under modules that whoever reads the file has not."""
    stranger = ModuleType("models_of_the_authors")
    for part in (Layer, Block, Down, Up, ModNet):
        monkeypatch.setattr(part, "__module__", stranger.__name__)
        setattr(stranger, part.__name__, part)
    monkeypatch.setitem(sys.modules, stranger.__name__, stranger)


def network(channels=1, latent=1, **other):
    """A network with statistics as after training, in evaluation mode."""
    made = ModNet(channels, latent, **other)
    for part in made.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
            nn.init.normal_(part.weight, 1, 0.1)
            nn.init.normal_(part.bias, 0, 0.1)
    return made.eval()


@pytest.fixture
def checkpoint(tmp_path):
    """Writes a checkpoint and returns its path; its networks are pickled by reference to a module that then is gone."""

    def write(model_a, model_b, *, legacy=False, **more):
        path = tmp_path / "model.pt"
        content = {"modelA": model_a, "modelB": model_b, **more}
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
        sys.modules.pop("models_of_the_authors", None)
        return path

    return write


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "settings",
    [
        {"latent": 3},
        {"init": 32, "blocks": (4, 4), "bottleneck": 4, "compression": 0.75, "dropout": 0.2, "log": True},
    ],
)
def test_the_imported_model_computes_what_the_pickled_one_does(checkpoint, tmp_path, settings, legacy):
    torch.manual_seed(0)
    theirs = {"bf": network(3, **settings), "shg": network(1, **settings)}
    path = checkpoint(theirs["bf"], theirs["shg"], legacy=legacy, epoch=7)
    card = import_original(path, tmp_path / "out", FACTS)
    model = find_model(tmp_path / "out")
    assert model.card == card
    for part in card.modalities:
        assert part.architecture.compression == settings.get("compression", 1.0)
        assert part.architecture.dropout == settings.get("dropout", 0.0)
        assert part.input.log is settings.get("log", False)
        image = np.random.default_rng(1).random((part.architecture.in_channels, 40, 48), dtype=np.float32)
        with torch.no_grad():
            wanted = theirs[part.modality](torch.from_numpy(image)[None])[0].numpy()
        found = load(model, part.modality, "cpu").run(image)
        assert np.abs(found - wanted).max() < 1e-5 * max(1, np.abs(wanted).max())


def test_pixels_are_scaled_as_the_authors_scale_them(checkpoint, tmp_path):
    facts = Facts("zurich", ("rgb", "nir"), 0.5, full=4096, log=("nir",))
    card = import_original(checkpoint(network(3), network(1)), tmp_path / "out", facts)
    assert [(part.input.scaling, part.input.full, part.input.log) for part in card.modalities] == [
        ("full", 4096, False),
        ("full", 4096, True),
    ]
    pixels = np.full((3, 8, 8), 2048, np.uint16)
    found = load(find_model(tmp_path / "out"), "rgb", "cpu").represent(
        lambda region: pixels[:, *region.slices], (8, 8), Region(0, 0, 8, 8), (Range(0, 4096),) * 3
    )
    assert np.isfinite(found).all()


def test_half_precision_and_shared_numbers_are_read(checkpoint, tmp_path):
    half, single = network().half(), network()
    single.conv_init.bias = half.conv_init.bias
    path = checkpoint(half, single)
    import_original(path, tmp_path / "out", FACTS)
    state = load(find_model(tmp_path / "out"), "bf", "cpu")._network.state_dict()
    assert state["stem.bias"].dtype == torch.float32
    assert torch.equal(state["stem.bias"], half.conv_init.bias.float())


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"pool": nn.AvgPool2d(2)}, "has AvgPool2d at down_steps.0.4, .* CoMIR has MaxPool2d there"),
        ({"pool": nn.MaxPool2d(3, 2)}, "down_steps.0.4 of .* has kernel_size 3"),
        ({"pool": nn.Identity()}, "has Identity at down_steps.0.4"),
        ({"deconv": True}, "has ConvTranspose2d at up_steps.0.0"),
        ({"bias": True}, "has a bias in its last convolution"),
        ({"stride": 2}, r"stem of .* has stride \(2, 2\)"),
    ],
)
def test_networks_of_another_kind_are_refused(checkpoint, tmp_path, other, said):
    path = checkpoint(network(), network(**other))
    with pytest.raises(ModelError, match=said):
        import_original(path, tmp_path / "out", FACTS)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("change", ["early", "missing", "no norm", "other width"])
def test_networks_with_other_parts_are_refused(checkpoint, tmp_path, change):
    changed = network()
    if change == "early":
        changed.early_transition_down = Down(16, 16, 0.0, nn.MaxPool2d(2))
    elif change == "missing":
        del changed.layers_up[1]
    elif change == "no norm":
        changed.bottleneck.layers[0].batchnorm = nn.Identity()
    else:
        changed.final_conv = nn.Conv2d(5, 1, 1, bias=False)
    with pytest.raises(ModelError, match=r"modelB of .*(is not a dense U-Net|which is not supported)"):
        import_original(checkpoint(network(), changed), tmp_path / "out", FACTS)


@pytest.mark.parametrize("legacy", [False, True])
def test_nothing_in_a_checkpoint_is_executed(checkpoint, tmp_path, legacy):
    import builtins
    import os

    touched = tmp_path / "touched"
    act = f"open({str(touched)!r}, 'w').close()"
    evil = [
        Evil(os.system, f"touch {touched}"),
        Evil(builtins.eval, act),
        Evil(builtins.exec, act),
        Evil(getattr, Evil(__import__, "pathlib"), "Path"),
    ]
    path = checkpoint(network(), network(), legacy=legacy, evil=evil)
    content = read_checkpoint(path)
    assert [record.origin[1] for record in content["evil"]] == ["system", "eval", "exec", "getattr"]
    assert all(isinstance(record, Record) for record in content["evil"])
    import_original(path, tmp_path / "out", FACTS)
    assert not touched.exists()
    torch.save({"modelA": evil[0], "modelB": evil[1]}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ModelError, match="holds 0 pickled networks"):
        import_original(path, tmp_path / "other", FACTS)
    assert not touched.exists()


@pytest.mark.parametrize(
    "body",
    [
        b"cos\nsystem\n(S'touch {}'\ntR.",
        b"(S'touch {}'\nios\nsystem\n.",
        b"(cos\nsystem\nS'touch {}'\no.",
        b'cbuiltins\nexec\n(S\'open("{}", "w").close()\'\ntR.',
    ],
)
def test_pickles_that_call_are_inert_in_every_way_that_a_pickle_can_call(tmp_path, body):
    touched, path = tmp_path / "touched", tmp_path / "evil.pt"
    body = body.replace(b"{}", str(touched).encode())
    pickle.loads(body)  # noqa: S301  it does act where it is trusted
    touched.unlink()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("evil/data.pkl", body)
    with pytest.raises(ModelError, match="holds 0 pickled networks"):
        import_original(path, tmp_path / "out", FACTS)
    path.write_bytes(body)
    with pytest.raises(ModelError, match="is no checkpoint of torch, or is damaged"):
        import_original(path, tmp_path / "out", FACTS)
    assert not touched.exists()


def test_a_pickle_cannot_change_what_reads_it(tmp_path):
    path = tmp_path / "evil.pt"
    setting_on_a_class = b"cos\nsystem\n(S'__init__'\ncos\nsystem\ndb."
    for body in (setting_on_a_class, b"\x80\x02\x82\x01.", b"S'x'\n(dS'a'\nS'b'\nsb."):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("evil/data.pkl", body)
        with pytest.raises(ModelError, match="is no checkpoint of torch, or is damaged"):
            read_checkpoint(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_that_is_cut_short_is_one_clear_error(checkpoint, tmp_path, legacy):
    path = checkpoint(network(), network(), legacy=legacy)
    data = path.read_bytes()
    words = ["models", "import", str(path), "--out", str(tmp_path / "out"), "--name", "x", "--mpp", "0.5"]
    for share in (0.0, 0.1, 0.5, 0.99):
        path.write_bytes(data[: int(share * len(data))])
        told = CliRunner().invoke(app, [*words, "--modalities", "bf", "shg"])
        assert told.exit_code == 3
        (line,) = told.stderr.splitlines()
        assert line == f"comir-batch: {path} is no checkpoint of torch, or is damaged; fetch or save it again"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([1, 2], "holds 0 pickled networks"),
        ({"modelA": {"conv_init.weight": torch.zeros(1)}, "modelB": {}}, "not a state_dict"),
        ({"modelA": nn.Conv2d(1, 1, 1), "modelB": nn.ReLU()}, "holds 0 pickled networks"),
    ],
)
def test_other_contents_are_refused(tmp_path, content, said):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(ModelError, match=said):
        import_original(tmp_path / "other.pt", tmp_path / "out", FACTS)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ModelError, match=r"cannot read the checkpoint .*: No such file"):
        import_original(tmp_path / "missing.pt", tmp_path / "out", FACTS)


def test_facts_that_do_not_fit_are_refused(checkpoint, tmp_path):
    path = checkpoint(network(), network())
    with pytest.raises(ModelError, match="log names nir"):
        import_original(path, tmp_path / "out", Facts("x", ("a", "b"), 0.5, log=("nir",)))
    with pytest.raises(ModelError, match="modalities 'a' and 'a' cannot be told apart"):
        import_original(path, tmp_path / "out", Facts("x", ("a", "a"), 0.5))


def test_a_network_within_itself_ends(tmp_path):
    own = network()
    own.add_module("again", own)
    torch.save({"modelA": own, "modelB": own}, tmp_path / "loop.pt")
    with pytest.raises(ModelError, match="more than 5000 parts"):
        import_original(tmp_path / "loop.pt", tmp_path / "out", FACTS)


def test_a_tensor_that_leaves_its_storage_is_refused(tmp_path):
    torch.save(torch.zeros(4), tmp_path / "t.pt")
    record = read_checkpoint(tmp_path / "t.pt")
    assert torch.equal(tensor(record), torch.zeros(4))
    storage, *_ = record.args
    record.args = (storage, 2, (4,), (1,))
    with pytest.raises(ModelError, match="a tensor of the checkpoint is damaged"):
        tensor(record)
    record.args = (storage, 0, (1000, 4), (0, 1))
    with pytest.raises(ModelError, match="a tensor of the checkpoint is damaged"):
        tensor(record)
    assert tensor(pickle.PickleBuffer(b"")) is None


@pytest.mark.parametrize("spoil", ["compressed", "longer"])
def test_entries_that_are_larger_than_they_should_be_are_not_read(tmp_path, spoil):
    torch.save(torch.zeros(1000), tmp_path / "sound.pt")
    way = zipfile.ZIP_DEFLATED if spoil == "compressed" else zipfile.ZIP_STORED
    more = b"" if spoil == "compressed" else bytes(4)
    with zipfile.ZipFile(tmp_path / "sound.pt") as sound, zipfile.ZipFile(tmp_path / "t.pt", "w") as spoilt:
        for name in sound.namelist():
            content, is_numbers = sound.read(name), name.endswith("/data/0")
            spoilt.writestr(name, content + more * is_numbers, way if is_numbers else zipfile.ZIP_STORED)
    with pytest.raises(ModelError, match="is damaged"):
        read_checkpoint(tmp_path / "t.pt")


def test_a_model_or_a_file_is_not_written_over(checkpoint, tmp_path):
    path = checkpoint(network(), network())
    import_original(path, tmp_path / "out", FACTS)
    before = {file: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    with pytest.raises(ModelError, match=r"holds a model already\. Choose another --out"):
        import_original(path, tmp_path / "out", FACTS)
    assert before == {file: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    with pytest.raises(ModelError, match="is a file, not a folder"):
        import_original(path, path, FACTS)


def test_the_command_makes_a_model_that_is_sound(checkpoint, tmp_path):
    path, run = checkpoint(network(), network()), CliRunner().invoke
    words = ["models", "import", str(path), "--out", str(tmp_path / "out"), "--name", "x", "--mpp", "0.5"]
    told = run(app, [*words, "--modalities", "bf", "shg", "--licence", "MIT", "--log", "shg"])
    assert told.exit_code == 0, told.stderr
    card = find_model(tmp_path / "out").card
    assert (card.licence, card.slides, list(card.data_sha256)) == ("MIT", 1, ["model.pt"])
    assert run(app, ["models", "verify", str(tmp_path / "out")]).exit_code == 0


def test_a_name_that_no_folder_can_have_is_refused(tmp_path):
    with pytest.raises(ModelError, match="'my model/x' cannot be that of a folder"):
        import_original(tmp_path / "any.pt", tmp_path / "out", Facts("my model/x", ("a", "b"), 0.5))
