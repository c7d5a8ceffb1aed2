"""Run as a process of its own: a small pretraining that checkpoints after every step, to be killed at any time.

The process that test_killed_pretraining.py kills. Not here: the assertions.
"""

import sys
from functools import partial
from pathlib import Path

from pipeline.networks import encoders, hierarchical_decoder
from pipeline.pretraining import job
from pipeline.pretraining.pretrain import pretrain
from pipeline.training import loop
from pipeline.training.loop import fit
from tests.pipeline.pretraining.conftest import NARROW, AllSettings, TinyEncoder, make_pool, settings_of


def main(method: str, folder: Path) -> None:
    for module in (encoders, job):
        module.build_encoder = lambda _: TinyEncoder()
    hierarchical_decoder._WIDTHS = NARROW
    loop.fit = partial(fit, checkpoint_seconds=0)
    settings = AllSettings(epochs=6, batch_size=4, learning_rate=1e-3, discriminator_learning_rate=1e-3)
    print("ready", flush=True)
    pretrain("resnet50", method, make_pool(), settings_of(method, settings), folder, print, lambda *_: None)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
