"""README's examples run as printed: the recipe, the names in Dagster, and the code that uses an encoder."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from assets.definitions import build_defs
from pipeline.methods import EncoderSettings
from pipeline.networks.encoders import load_encoder
from pipeline.pretraining.encoder_folder import ENCODER, Preprocessing
from pipeline.pretraining.pretrain import pretrain
from pipeline.progress import silent
from resources.environment import read_environment
from tests.conftest import ROOT
from tests.pipeline.pretraining.conftest import make_pool

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_walk_s_recipe_is_read_and_its_names_are_in_dagster(tmp_path: Path) -> None:
    text = README.split("## Your own archive")[1].split("With labelled sets")[0]
    (recipe,) = re.findall(r"^```yaml\n(.*?)^```$", text, re.M | re.S)
    (tmp_path / "mine.yaml").write_text(recipe, encoding="utf-8")
    variables = {"SONOTAG_RECIPE": str(tmp_path / "mine.yaml"), "SONOTAG_STORE": str(tmp_path / "store")}
    definitions = build_defs(read_environment(variables))
    assets = {key.path[-1]: key for key in definitions.resolve_asset_graph().get_all_asset_keys()}
    jobs = {job.name for job in definitions.resolve_all_job_defs()}
    named = set(re.findall(r"`([a-z0-9_]+)`", text))
    assert {"quarantine", "unmapped_descriptions", "resnet50_ce_dcm_encoder", "ingest", "pool_can_train"} <= named
    checks = {key.name for key in definitions.resolve_asset_graph().asset_check_keys}
    assert named <= set(assets) | jobs | checks
    pictures = re.findall(r"\]\((docs/images/[^)]+)\)", README)
    assert len(pictures) > 5 and all((ROOT / picture).is_file() for picture in pictures)


@pytest.mark.integration
def test_the_encoder_is_used_as_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", README, re.M | re.S)
    assert len(blocks) == 2
    pretrain("resnet50", "baseline", make_pool(4, 2, 32, 64), EncoderSettings(), tmp_path, silent, lambda *_: None)
    picture = np.random.default_rng(0).integers(0, 256, (50, 70), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)

    how = Preprocessing.read(tmp_path)
    resized = torch.tensor(np.array(Image.fromarray(picture).resize((64, 32), Image.Resampling.BILINEAR)))
    with torch.no_grad():
        maps = load_encoder(how.backbone, tmp_path / ENCODER).eval()(how.normalization.apply(resized[None]))
    torch.testing.assert_close(torch.as_tensor(names["maps"]), maps, rtol=1e-4, atol=1e-4 * maps.max().item())
    features = names["features"]
    assert isinstance(features, torch.Tensor)
    torch.testing.assert_close(features.detach(), maps.mean(dim=(2, 3)), rtol=1e-4, atol=1e-5)
