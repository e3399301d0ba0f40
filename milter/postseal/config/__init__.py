"""The configuration: one TOML file -> one frozen ``Config``. The docs of its fields are the manual.

``load_config(path)`` reads and checks a file, ``Config.default(milter={"workers": 2})`` is for tests and tools. Both
raise ``ConfigProblems`` (a ConfigError) that names file, line, key, what was given and what is allowed.
"""

from postseal.config.load import ConfigProblems, Problem, load_config, load_text
from postseal.config.model import Config
from postseal.config.values import InetSocket, UnixSocket, parse_socket

__all__ = [
    "Config",
    "ConfigProblems",
    "InetSocket",
    "Problem",
    "UnixSocket",
    "load_config",
    "load_text",
    "parse_socket",
]
