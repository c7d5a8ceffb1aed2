"""Phantom clinics that are small enough for a test.

Belongs here: their sizes. Not here: expectations, making them.
"""

from pipeline.phantom.settings import Amount, LabelledAmount, Phantom

ONE = Amount(images=1, patients=1)


def labelled(images_per_patient: int, patients: tuple[int, int, int]) -> LabelledAmount:
    """A labelled set with so many patients in train, val and test."""
    train, val, test = (Amount(images=images_per_patient * count, patients=count) for count in patients)
    return LabelledAmount(train=train, val=val, test=test)


def small_clinic(images: int, patients: int, **settings: object) -> Phantom:
    """An archive of that size, and labelled sets of one image per split, unless `settings` differ."""
    tiny = LabelledAmount(train=ONE, val=ONE, test=ONE)
    made = Phantom(archive=Amount(images=images, patients=patients), quality=tiny, liver_kidney=tiny, thyroid=tiny)
    return made.model_copy(update=settings)
