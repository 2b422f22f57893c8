"""Every error this project raises on purpose.

* LZeroError: base; its message names the thing, what was expected, what came and what to do.
  * ConfigError: a config file or an override is wrong. The run does not start.
  * InputError: a task file, corpus, model folder or checkpoint cannot be used. Does not start.
  * MachineError: the machine lacks something (bwrap, a free address, a package).
  * ProtocolError: a peer sent bytes that break the wire protocol. The peer is disconnected.
  * PolicyServerError: the policy server failed or answered nonsense after all retries.
  * PolicyMismatchError: server and learner disagree about log-probabilities. Ends the run.
  * KernelError: one kernel died or misbehaved. Ends only its own episode.
  * PluginError: a tool, reward term or task type of the user's own failed. Ends its own episode.
  * RunError: a child process ended the run.
"""


class LZeroError(Exception):
    """Base of all errors raised on purpose; the text is meant for the person at the terminal."""


class ConfigError(LZeroError, ValueError):
    """A config key or value is wrong; raised before anything is started."""


class InputError(LZeroError):
    """A file the user pointed to is missing, malformed or of an unsupported format version."""


class MachineError(LZeroError):
    """The machine lacks something that the run needs; the message says how to get it."""


class ProtocolError(LZeroError):
    """A peer broke the wire protocol: wrong schema version, malformed or oversized frame."""


class PolicyServerError(LZeroError):
    """The policy server did not answer, or answered with an error, after all retries."""


class PolicyMismatchError(LZeroError):
    """Learner and policy server disagree on log-probabilities of the same weights and tokens."""


class KernelError(LZeroError):
    """A sandboxed kernel died, or broke its protocol; its episode ends, the run goes on."""


class PluginError(LZeroError):
    """Code of the user's own package failed or broke its contract; its episode is dropped."""


class RunError(LZeroError):
    """A process of the run ended unexpectedly; carries its name, exit code and last lines."""
