"""elastix' parameters follow from the configuration."""

import pytest
from typer.testing import CliRunner

from comir_batch.cli.app import app
from comir_batch.core.config import RegisterConfig
from comir_batch.core.config_file import load_config
from comir_batch.core.errors import ConfigError
from comir_batch.core.geometry import Grid
from comir_batch.registration.elastix_maps import parse
from comir_batch.registration.parameters import (
    affine,
    bspline,
    given,
    others_metrics,
    preset,
    require_stages,
    resolutions,
    rigid,
)

SMALL = Grid(256, 256, 1.0, 1.0)


@pytest.mark.parametrize(("width", "height", "levels"), [(50, 60, 2), (256, 300, 3), (992, 1216, 4), (90000, 80000, 7)])
def test_resolutions_follow_the_size(width, height, levels):
    assert resolutions(Grid(width, height, 1.0, 1.0)) == levels


def test_samples_iterations_and_seed_are_the_configurations():
    config = RegisterConfig(seed=7, samples=512, iterations=33)
    for stage, iterations in ((rigid, "17"), (affine, "17"), (bspline, "33")):
        parameters = stage("ncc", config, SMALL, 3)
        assert parameters["RandomSeed"] == ("7",)
        assert set(parameters["NumberOfSpatialSamples"]) == {"512"}
        assert parameters["MaximumNumberOfIterations"] == (iterations,)
        assert parameters["NumberOfResolutions"] == ("3",)
        assert set(stage("mi", config, SMALL, 3)["NumberOfSpatialSamples"]) == {"2048"}


def test_many_control_points_have_more_samples():
    config, slide = RegisterConfig(grid_um=50.0, samples=2048), Grid(4000, 2000, 1.0, 1.0)
    few, more, most = ((4000 // step + 3) * (2000 // step + 3) for step in (400, 200, 100))
    assert few < 256 < more
    samples = bspline("ncc", config.model_copy(update={"grid_um": 100.0}), slide, 3)["NumberOfSpatialSamples"]
    assert samples == ("2048", str(8 * more), str(8 * most))


def test_samples_end_where_more_would_take_too_long():
    samples = bspline("mi", RegisterConfig(), Grid(8192, 8192, 4.0, 4.0), 2)["NumberOfSpatialSamples"]
    assert samples == ("131072", "131072")
    assert bspline("ncc", RegisterConfig(samples=200_000), SMALL, 1)["NumberOfSpatialSamples"] == ("200000",)


def test_mutual_information_takes_whole_pixels_of_small_images_by_a_sampler_with_a_seed():
    for stage in (rigid, affine):
        assert stage("mi", RegisterConfig(), SMALL, 2)["ImageSampler"] == ("RandomSparseMask",)
        assert stage("mi", RegisterConfig(), Grid(2048, 1024, 1.0, 1.0), 2)["ImageSampler"] == ("RandomCoordinate",)
        assert stage("ncc", RegisterConfig(), SMALL, 2)["ImageSampler"] == ("RandomCoordinate",)


def test_each_view_has_its_metric():
    assert rigid("mi", RegisterConfig(), SMALL, 2)["Metric"] == ("AdvancedMattesMutualInformation",)
    assert bspline("ncc", RegisterConfig(), SMALL, 2)["Metric"][0] == "AdvancedNormalizedCorrelation"


def test_the_control_points_halve_towards_the_final_spacing():
    parameters = bspline("ncc", RegisterConfig(grid_um=50.0), SMALL, 3)
    assert parameters["FinalGridSpacingInPhysicalUnits"] == ("50.0", "50.0")
    assert parameters["GridSpacingSchedule"] == ("4", "4", "2", "2", "1", "1")


@pytest.mark.parametrize("stage", [rigid, affine, bspline])
def test_raw_images_beside_representations_are_a_metric_with_images_of_its_own(stage):
    parameters = stage("ncc", RegisterConfig(second_weight=0.5, bending_weight=7.0), SMALL, 2, "raw")
    assert parameters["Metric"] == (
        "AdvancedNormalizedCorrelation",
        "AdvancedMattesMutualInformation",
        "TransformBendingEnergyPenalty",
    )
    assert [parameters[f"Metric{k}Weight"] for k in range(3)] == [("1.0",), ("0.5",), ("7.0",)]
    alone = stage("mi", RegisterConfig(), SMALL, 2)
    for key in ("FixedImagePyramid", "MovingImagePyramid", "Interpolator", "ImageSampler"):
        assert len(parameters[key]) == 3
        assert parameters[key][1:2] == alone[key]
    assert parameters["NumberOfSpatialSamples"] == alone["NumberOfSpatialSamples"]


@pytest.mark.parametrize("stage", [rigid, affine, bspline])
def test_raw_images_have_no_second_metric_of_themselves(stage):
    assert stage("mi", RegisterConfig(), SMALL, 2, "raw") == stage("mi", RegisterConfig(), SMALL, 2)


@pytest.mark.parametrize("stage", [rigid, affine, bspline])
@pytest.mark.parametrize("metric", ["ncc", "mi"])
def test_landmarks_are_weighed_by_their_distance_in_control_point_spacings(stage, metric):
    config = RegisterConfig(second_weight=3.0, grid_um=32.0)
    parameters, alone = (stage(metric, config, SMALL, 2, second) for second in ("landmarks", "none"))
    last = len(alone["Metric"])
    assert parameters["Metric"] == (*alone["Metric"], "CorrespondingPointsEuclideanDistanceMetric")
    assert parameters[f"Metric{last}Weight"] == (repr(3.0 / 32.0),)
    assert parameters["ImageSampler"] == alone["ImageSampler"]


def test_a_second_metric_is_shown_but_not_written(tmp_path):
    second = ["--set", "register.second_metric=raw"]
    shown = CliRunner().invoke(app, ["presets", "show", *second])
    assert shown.output.count("AdvancedMattesMutualInformation") == 3
    refused = CliRunner().invoke(app, ["presets", "write", str(tmp_path / "own"), *second])
    assert refused.exit_code == 3
    assert "second_metric" in refused.stderr
    assert not (tmp_path / "own").exists()


@pytest.fixture
def written(tmp_path):
    """Files of the preset, as a user gets them."""
    done = CliRunner().invoke(app, ["presets", "write", str(tmp_path / "own"), "--view", "raw", "--side", "512"])
    assert done.exit_code == 0, done.output
    return sorted((tmp_path / "own").iterdir())


def test_a_second_metric_is_for_the_presets(written):
    files = [str(path) for path in written]
    with pytest.raises(ConfigError, match="second_metric is for the presets"):
        load_config(None, {"register": {"parameter_files": files, "second_metric": "raw"}})


def test_what_is_written_is_the_preset_and_can_be_given_back(written):
    assert [path.name for path in written] == ["1-rigid.txt", "2-affine.txt", "3-bspline.txt"]
    config = load_config(None, {"register": {"parameter_files": [str(path) for path in written]}}).register_
    own = given(config, deformable=True)
    expected = preset("mi", RegisterConfig(), Grid(512, 512, 1.0, 1.0))
    assert [stage["Metric"] for stage in own] == [stage["Metric"] for stage in expected.values()]
    assert all(stage.items() >= wanted.items() for stage, wanted in zip(own, expected.values(), strict=True))
    assert [stage["Transform"] for stage in given(config, deformable=False)] == [
        ("EulerTransform",),
        ("AffineTransform",),
    ]


@pytest.mark.parametrize(
    ("kept", "registration", "wrong"),
    [
        ((2,), "affine", "all files have B-splines"),
        ((0, 1), "bspline", "no file has a B-spline"),
        ((0, 1), "affine", ""),
        ((0, 1), "blocks", ""),
        ((0, 2), "affine", ""),
        ((0, 2), "bspline", ""),
        ((), "affine", ""),
    ],
)
def test_files_that_do_not_do_what_the_manifest_asks_are_told(written, kept, registration, wrong):
    config = RegisterConfig(parameter_files=tuple(str(written[number]) for number in kept))
    if not wrong:
        require_stages(config, registration)
        return
    with pytest.raises(ConfigError, match=wrong):
        require_stages(config, registration)


def test_files_of_the_other_view_are_known(written):
    config = RegisterConfig(parameter_files=tuple(map(str, written)))
    assert others_metrics(config, "ncc") == ("AdvancedMattesMutualInformation",)
    assert others_metrics(config, "mi") == ()
    assert others_metrics(RegisterConfig(), "ncc") == ()


def test_the_text_of_the_files_is_kept_so_that_the_run_can_be_made_again(written):
    config = RegisterConfig(parameter_files=(str(written[0]),))
    written[0].unlink()
    again = RegisterConfig.model_validate(config.model_dump(mode="json"))
    assert again == config
    assert parse(again.parameter_files[0])["Transform"] == ("EulerTransform",)


def test_what_the_rest_relies_on_is_not_the_users_to_change(written):
    written[0].write_text(written[0].read_text().replace('(WriteResultImage "false")', '(WriteResultImage "true")'))
    (stage,) = given(RegisterConfig(seed=5, parameter_files=(str(written[0]),)), deformable=True)
    assert stage["WriteResultImage"] == ("false",)
    assert stage["RandomSeed"] == ("1",)  # the file's own


@pytest.mark.parametrize("text", ["no parameters", '(Transform "ThinPlateSplineKernelTransform")', ""])
def test_what_is_no_parameter_file_is_told(tmp_path, text):
    (tmp_path / "p.txt").write_text(text)
    config = RegisterConfig(parameter_files=(str(tmp_path / "p.txt"),))
    with pytest.raises(ConfigError, match=r"file 1 has the transform .* comir-batch presets write makes some"):
        given(config, deformable=True)


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ConfigError, match=r"parameter_files.*cannot read .*nowhere\.txt: No such file"):
        load_config(None, {"register": {"parameter_files": [str(tmp_path / "nowhere.txt")]}})


def test_files_are_not_written_over(written):
    done = CliRunner().invoke(app, ["presets", "write", str(written[0].parent)])
    assert done.exit_code == 3
    assert "is there already" in done.output
