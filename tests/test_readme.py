"""README's examples do what they say.

Belongs here: running them on a folder that the project wrote. Not here: what else is in that folder.
"""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.networks.encoders import load_encoder
from pipeline.pretraining.encoder_folder import ENCODER, Preprocessing
from pipeline.pretraining.pretrain import pretrain
from pipeline.progress import silent
from pipeline.recipe import EncoderSettings
from tests.conftest import ROOT
from tests.pipeline.pretraining.conftest import make_pool


def test_the_encoder_is_used_as_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
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
