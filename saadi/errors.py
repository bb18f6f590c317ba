"""Errors that a user can cause: each message says what was expected, what came, and the way out."""


class SaadiError(Exception):
    """Base of everything that a user can cause or cure; shown as one sentence, never as a traceback."""


class BadInputError(SaadiError, ValueError):
    """A value, file or picture cannot be used as it is; nothing was stored."""


class BadImageError(BadInputError):
    """A picture was refused while it was decoded."""


class SizeMismatchError(BadInputError):
    """Two arrays that belong together differ in height or width."""


class UnknownClassError(BadInputError):
    """A label map holds a value that the project does not know."""


class NotFoundError(SaadiError, LookupError):
    """No such project, image, sample, job or adapter."""


class ConflictError(SaadiError):
    """Somebody saved a newer revision in the meantime; nothing was overwritten."""


class TooFewError(SaadiError, ValueError):
    """Too few images, votes or pairs for the work that was asked; the message says how many are missing."""


class NewerStoreError(SaadiError):
    """The data folder was written by a newer release."""


class StorageError(SaadiError, OSError):
    """Disk full or failing; the last action was not stored."""


class WeightsError(SaadiError, ValueError):
    """A weights or adapter file is damaged, of the wrong kind or made for another model."""


class AlignmentStoppedError(SaadiError):
    """Every alignment checkpoint failed the gate; no adapter was made."""


class CancelledError(SaadiError):
    """The user pressed stop."""


class YieldedError(CancelledError):
    """Somebody waits in front of the page: this job goes back into the queue and goes on afterwards."""


class FencedError(SaadiError):
    """Another worker owns this job now; this one must stop without publishing anything."""
