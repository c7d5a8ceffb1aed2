"""The section `images`: the size of all images."""

from pipeline.settings import Settings, Side


class Images(Settings):
    """The size to which every image is resized, in pixels."""

    height: Side = 256
    width: Side = 384
