"""What a person can mend: mistakes in an archive's place, a recipe, a mapping or a manifest.

Belongs here: the one exception that carries a sentence for the user. Not here: bugs and infrastructure faults.
"""


class UserError(Exception):
    """A mistake the user can mend; its message is one sentence that names the file and the field.

    An archive file is named by its file id, never by its path. Callers print the sentence and exit non-zero.
    """
