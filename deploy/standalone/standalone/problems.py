"""What can go wrong for the person at the terminal. Each message is a sentence that says what to do."""


class StandaloneError(Exception):
    """Something that the operator can mend; the message says how."""


class StartFailed(StandaloneError):
    """A child did not become ready. The message ends with the last lines of its log."""


class AlreadyRunning(StandaloneError):
    """Another `aragora up` holds this data directory. Stop it, or give this one another `--data-dir`."""


class PortTaken(StandaloneError):
    """Somebody else listens on the port. Stop that program or choose another `--port`."""


class NotEnoughDisk(StandaloneError):
    """The disk of the data directory is (almost) full. Free some space or choose another `--data-dir`."""


class DataDirUnusable(StandaloneError):
    """The data directory cannot be written or belongs to another version. Mend it or choose another `--data-dir`."""


class NotRunning(StandaloneError):
    """Nothing runs on this data directory. Start it with `aragora up`, or set DATABASE_URL and NATS_URL."""


class CatalogUnusable(StandaloneError):
    """The plan catalog cannot be used. The message names the file, the line and the key."""


class StripeIsSet(StandaloneError):
    """A stand-in for Stripe was asked for, and Stripe itself is set up. Leave out one of the two."""
