"""What may go wrong and be raised. Expected states of the world (no certificate, revoked, stale) are values, not errors.

PostsealError
├── BadData         bytes or text that someone gave us are not what they claim to be   exit 65
├── Usage           the command line is wrong                                         exit 64
├── ConfigError     the configuration is wrong                                        exit 78
├── Unavailable     a service, file or database can't be reached now                   exit 69
├── CannotCreate    an output can't be written                                        exit 73
├── TryAgain        a temporary condition (busy, full)                                exit 75
└── NotPermitted    the operating system says no                                      exit 77

The text of each is one sentence for an administrator: it names the thing and the cause.
"""


class PostsealError(Exception):
    """Root of all errors that postseal raises on purpose."""

    exit_code = 70


class BadData(PostsealError):
    exit_code = 65


class Usage(PostsealError):
    exit_code = 64


class ConfigError(PostsealError):
    exit_code = 78


class Unavailable(PostsealError):
    exit_code = 69


class CannotCreate(PostsealError):
    exit_code = 73


class TryAgain(PostsealError):
    exit_code = 75


class NotPermitted(PostsealError):
    exit_code = 77
