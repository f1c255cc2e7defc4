"""elastix' parameters follow from the configuration."""

import pytest

from comir_batch.core.config import RegisterConfig
from comir_batch.core.geometry import Grid
from comir_batch.registration.parameters import affine, bspline, resolutions, rigid


@pytest.mark.parametrize(("width", "height", "levels"), [(50, 60, 2), (256, 300, 3), (992, 1216, 4), (90000, 80000, 7)])
def test_resolutions_follow_the_size(width, height, levels):
    assert resolutions(Grid(width, height, 1.0, 1.0)) == levels


def test_samples_iterations_and_seed_are_the_configurations():
    config = RegisterConfig(seed=7, samples=512, iterations=33)
    for stage, iterations in ((rigid, "17"), (affine, "17"), (bspline, "33")):
        parameters = stage("ncc", config, 3)
        assert parameters["RandomSeed"] == ("7",)
        assert parameters["NumberOfSpatialSamples"] == ("512",)
        assert parameters["MaximumNumberOfIterations"] == (iterations,)
        assert parameters["NumberOfResolutions"] == ("3",)
        assert stage("mi", config, 3)["NumberOfSpatialSamples"] == ("1024",)


def test_each_view_has_its_metric():
    assert rigid("mi", RegisterConfig(), 2)["Metric"] == ("AdvancedMattesMutualInformation",)
    assert bspline("ncc", RegisterConfig(), 2)["Metric"][0] == "AdvancedNormalizedCorrelation"


def test_the_control_points_halve_towards_the_final_spacing():
    parameters = bspline("ncc", RegisterConfig(grid_um=50.0), 3)
    assert parameters["FinalGridSpacingInPhysicalUnits"] == ("50.0", "50.0")
    assert parameters["GridSpacingSchedule"] == ("4", "4", "2", "2", "1", "1")
