"""Errors of rsd_local: one tree, each with a stable code, an exit code and, where there is one, a fix.

RSDError
├── ConfigError            a setting, a flag or a key of a TOML file
├── QuestionRefused        a question that the chosen trio cannot take
├── ModelError             a model file or its content
│   ├── ModelNotFound      no such file
│   ├── NotAModel          no GGUF file, a damaged one, or one that llama.cpp cannot load
│   ├── NoChatTemplate     a draft or target that cannot be asked
│   ├── MissingTokens      a reward model without the tokens that its layout reads
│   ├── BadHead            a head that is damaged, of another kind, or of another model
│   └── BadAdapter         a LoRA adapter that is damaged, or of another model
├── VerifierFailed         a verifier that raised, hung, died or answered nonsense
├── SandboxTooWeak         programs cannot be confined here as far as was asked
├── DoesNotFit             a trio that needs more memory than is free
├── EngineError            an engine that could not do what it was asked
│   ├── ContextFull        the tokens do not fit the context
│   ├── DecodeFailed       llama.cpp refused or failed a batch
│   ├── SequenceBusy       a second request to a sequence before the first is done
│   ├── NoSlot             more sequences than the engine was opened for
│   ├── EngineCrashed      the process of isolated models ended
│   └── Closed             a call to something that was closed
├── RemoteError            a server that a role is on
│   ├── Unreachable        it does not answer, or no longer
│   ├── RemoteBusy         it is loading, or has too much to do
│   ├── Unauthorized       it does not let us in
│   ├── RemoteRefused      it does not have, or does not take, what was asked for
│   └── BadAnswer          it failed, or answered what it should not
├── QueueFull              more prompts than may wait
├── WaitsForItself         a run that would wait for one of the same thread
└── Cancelled              the caller's own wish
"""

from __future__ import annotations


class RSDError(Exception):
    """The root of the tree.

    Args:
        message: what is wrong, in one line.
        hint: what to do about it, in one line; a traceback shows it below the message.
    """

    code = "error"
    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        if hint:
            self.add_note(f"hint: {hint}")


class ConfigError(RSDError):
    """A setting, a flag or a key of a TOML file that cannot be used."""

    code, exit_code = "config", 2


class QuestionRefused(RSDError):
    """A question that the chosen trio cannot take."""

    code, exit_code = "question-refused", 2


class ModelError(RSDError):
    """A model file or its content."""

    code = "model"


class ModelNotFound(ModelError):
    """There is no such file."""

    code = "model-not-found"


class NotAModel(ModelError):
    """No GGUF file, a damaged one, or one that llama.cpp cannot load."""

    code = "not-a-model"


class NoChatTemplate(ModelError):
    """A draft or target that has no chat template, or one that cannot be rendered."""

    code = "no-chat-template"


class MissingTokens(ModelError):
    """A reward model without the tokens that its layout reads."""

    code = "missing-tokens"


class BadHead(ModelError):
    """A head that is damaged, of another kind, or of another model."""

    code = "bad-head"


class BadAdapter(ModelError):
    """A LoRA adapter that is damaged, or of another model."""

    code = "bad-adapter"


class VerifierFailed(RSDError):
    """A verifier that raised, hung, died or answered nonsense; a step that does not pass is no failure of it."""

    code = "verifier-failed"


class SandboxTooWeak(RSDError):
    """Programs cannot be confined on this machine as far as was asked."""

    code = "sandbox-too-weak"


class DoesNotFit(RSDError):
    """A trio that needs more memory than is free."""

    code = "does-not-fit"


class EngineError(RSDError):
    """An engine that could not do what it was asked."""

    code = "engine"


class ContextFull(EngineError):
    """The tokens do not fit the context."""

    code = "context-full"


class DecodeFailed(EngineError):
    """llama.cpp refused or failed a batch, or gave logits that are no numbers."""

    code = "decode-failed"


class SequenceBusy(EngineError):
    """A second request to a sequence before the first is done."""

    code = "sequence-busy"


class NoSlot(EngineError):
    """More sequences than the engine was opened for."""

    code = "no-slot"


class EngineCrashed(EngineError):
    """The process that the models of an isolated reasoner live in ended, or was ended; the next call starts it again."""

    code = "engine-crashed"


class Closed(EngineError):
    """A call to a model, engine or sequence that was closed."""

    code = "closed"


class RemoteError(RSDError):
    """A server that a role is on.

    Attributes:
        role: the reward whose server it is; empty for one of draft or target.
    """

    code = "remote"
    role = ""


class Unreachable(RemoteError):
    """A server that does not answer, or no longer: refused, timed out, reset, or not to be trusted."""

    code = "remote-unreachable"


class RemoteBusy(RemoteError):
    """A server that is loading its model, or has too much to do."""

    code = "remote-busy"


class Unauthorized(RemoteError):
    """A server that does not let us in: it wants a key, or another one."""

    code = "remote-unauthorized"


class RemoteRefused(RemoteError):
    """A server that does not have, or does not take, what was asked for."""

    code = "remote-refused"


class BadAnswer(RemoteError):
    """A server that failed, or answered what it should not.

    Attributes:
        status: of HTTP, where the server says so itself; 0 otherwise.
    """

    code = "remote-bad-answer"
    status = 0


class QueueFull(RSDError):
    """More prompts than may wait."""

    code = "queue-full"


class WaitsForItself(RSDError):
    """A run that would wait for ever, for all places are held by its own thread."""

    code = "waits-for-itself"


class Cancelled(RSDError):
    """The caller cancelled; what was in flight left no trace."""

    code, exit_code = "cancelled", 130
