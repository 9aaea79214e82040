"""Which of several model files go together as draft and target, told from their headers alone."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

from rsd_local.catalogue.folders import ModelFile
from rsd_local.config import RoleConfig
from rsd_local.errors import RSDError
from rsd_local.events import Role
from rsd_local.fit.kinds import why_not
from rsd_local.fit.memory import Footprint, RoleCapacity
from rsd_local.fit.speed import gain
from rsd_local.gguf_header import Header, KnownTexts, active_parameters, parameters, read_header
from rsd_local.runtime.attention import faster_attention
from rsd_local.runtime.vocabulary import Vocabulary

ACCEPTED = 0.7
"""The share of drafted steps that is taken to be accepted where a speed is estimated."""
_LEAST, _CLOSE, _USUAL, _FAR = 2.0, 3.0, 6.0, 25.0
"""Active weights of a target, its draft having 1: from which on there is something to gain; below and above which the pair is an
unlikely one; and which is taken to be the best. Those of the paper (arXiv 2501.19324) are about 5 and 10 times apart."""
_READ = 0.6  # of the bytes that the target reads for a token, the draft reads at most so many
_SLOW = 1.5  # tokens a second


@dataclass(frozen=True, slots=True)
class Candidate:
    """A language model that can be asked.

    Attributes:
        file: where it is.
        weights: of the model.
        active: of them, those that one token is multiplied with.
        size: of its files, in bytes.
        footprint: what it needs in memory as a target, at the usual settings.
        reading: what it needs as a draft or a reward, whose attention may be the faster one.
        vocabulary: equal for the same tokens.
        shape: equal for models that differ in their numbers alone.
    """

    file: ModelFile
    weights: int
    active: int
    size: int
    footprint: Footprint
    reading: Footprint
    vocabulary: int
    shape: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """A draft and a target that go together.

    Attributes:
        draft, target: the models.
        ratio: the target's active weights, the draft's being 1.
        memory: bytes of both with their contexts, and of the context in which the target judges.
        gain: how many times as fast as the target alone at best, where ``ACCEPTED`` of the draft's steps are accepted and memory
            bounds the speed.
        notes: what speaks against it.
        tier: 0 for a usual pair; the higher, the less likely is a gain.
    """

    draft: Candidate
    target: Candidate
    ratio: float
    memory: int
    gain: float
    notes: tuple[str, ...]
    tier: int

    @property
    def roles(self) -> tuple[tuple[str, Candidate], tuple[str, Candidate]]:
        """The models with their roles."""
        return ("draft", self.draft), ("target", self.target)


@dataclass(frozen=True, slots=True)
class _Obstacle:
    """Why two models are no pair.

    Attributes:
        kind: what it is; the higher, the farther they are from being one.
        ratio: of their active weights.
        text: what it is, with ``{other}`` for the name of the other one.
    """

    kind: int
    ratio: float
    text: str


@dataclass(frozen=True, slots=True)
class Left:
    """A file that is in no pair, and why."""

    file: ModelFile
    reason: str


class Candidates:
    """Reads the headers of files: each once, and what their vocabularies have in common once for each two vocabularies."""

    def __init__(self, *, on_gpu: bool) -> None:
        self.models: list[Candidate] = []
        self.left: list[Left] = []
        self._on_gpu, self._known = on_gpu, KnownTexts()
        self._numbers: dict[bytes, int] = {}
        self._vocabularies: list[Vocabulary] = []
        self._common: dict[tuple[int, int], bool] = {}

    def read(self, file: ModelFile) -> None:
        """Looks at a file: it is a model for a pair from now on, or among those that are not, with the reason."""
        try:
            header = read_header(file.path, self._known)
            reason = why_not(header, file.name)
            if not reason:
                self.models.append(self._candidate(file, header))
                return
        except RSDError as error:
            reason = str(error).removeprefix(str(file.path)).lstrip().replace("is not a GGUF file", "no GGUF file", 1)
        except OSError as error:
            reason = f"cannot be read: {error.strerror}"
        self.left.append(Left(file, reason))

    def share(self, one: Candidate, other: Candidate) -> bool:
        """Whether two models have their tokens in common, by the rule that draft and target are opened with."""
        first, second = sorted((one.vocabulary, other.vocabulary))
        if first == second:
            return True
        if (first, second) not in self._common:
            self._common[first, second] = self._vocabularies[first].common(self._vocabularies[second]) > 0
        return self._common[first, second]

    def _candidate(self, file: ModelFile, header: Header) -> Candidate:
        config = RoleConfig(file.path)
        roles = (RoleCapacity(made, 1) for made in (config, faster_attention(config)))
        footprint, reading = (Footprint.of(header, role, on_gpu=self._on_gpu) for role in roles)
        vocabulary = Vocabulary.read(file.path, header)
        digest = hashlib.sha256(f"{vocabulary.kind} {vocabulary.count} ".encode())
        digest.update(vocabulary.types.tobytes())
        digest.update(vocabulary.texts)
        number = self._numbers.setdefault(digest.digest(), len(self._vocabularies))
        if number == len(self._vocabularies):
            self._vocabularies.append(vocabulary)
        shape = tuple((tensor.name, tensor.shape) for tensor in header.tensors if tensor.name != "output.weight")
        made = parameters(header), active_parameters(header)
        return Candidate(file, *made, header.size, footprint, reading, number, (header.metadata.get("general.architecture"), hash(shape)))


def find_pairs(found: Candidates, free: int, bandwidth: float = math.inf) -> tuple[list[Pair], list[Left]]:
    """The pairs that go together, best first, and the models that are in none, with the reason.

    First comes each target with its best draft, then all other pairs. The larger a target is, the better, and the nearer its draft
    is to a sixth of it: smaller drafts are right less often, and larger ones save less.

    Args:
        found: the models.
        free: bytes of memory that a pair can have.
        bandwidth: bytes that memory gives in a second; infinite where that is not what bounds the speed.
    """
    pairs, obstacles = list[Pair](), dict[int, tuple[_Obstacle, Candidate]]()
    for target in found.models:
        for draft in found.models:
            if not _is_smaller(draft, target):
                continue
            made = _pair(draft, target, free, bandwidth) if found.share(draft, target) else _Obstacle(3, 0.0, _ALONE)
            if isinstance(made, Pair):
                pairs.append(made)
                continue
            for one, other in ((draft, target), (target, draft)):
                known = obstacles.get(id(one))
                if known is None or (made.kind, made.ratio) < (known[0].kind, known[0].ratio):
                    obstacles[id(one)] = made, other
    pairs.sort(key=_rank)
    best = {id(pair.target): pair for pair in reversed(pairs)}
    pairs.sort(key=lambda pair: best[id(pair.target)] is not pair)
    paired = {id(one) for pair in pairs for one in (pair.draft, pair.target)}
    left = []
    for model in found.models:
        if id(model) not in paired:
            obstacle, other = obstacles.get(id(model), (_Obstacle(4, 0.0, "it is the only language model here"), model))
            left.append(Left(model.file, obstacle.text.format(other=other.file.name)))
    return pairs, left


_ALONE = "no other model here has its vocabulary"


def _is_smaller(draft: Candidate, target: Candidate) -> bool:
    """Whether of two models the first may be the draft of the second: each two are asked about in one order alone."""
    by_bytes = draft.shape == target.shape
    one, other = ((0 if by_bytes else model.active, model.footprint.read, model.file.setting) for model in (draft, target))
    return one < other


def _pair(draft: Candidate, target: Candidate, free: int, bandwidth: float) -> Pair | _Obstacle:
    """Two models of one vocabulary as a pair, or why they are none."""
    ratio, read = target.active / max(1, draft.active), draft.footprint.read / max(1, target.footprint.read)
    same = draft.shape == target.shape
    notes, tier = list[str](), 0
    if ratio < _LEAST and not (same and read <= _READ):
        what = "active weights" if any(model.active < model.weights for model in (draft, target)) else "weights"
        return _Obstacle(2, ratio, f"too close in size to {{other}} ({ratio:.1f} times the {what}): nothing to gain")
    if read > _READ:
        return _Obstacle(1, ratio, f"with {{other}} the draft would read {read:.0%} of the target's bytes for a token: nothing to gain")
    memory = _bytes(draft.reading) + _bytes(target.footprint) + target.reading.cache + target.reading.compute
    if memory > free:
        return _Obstacle(0, ratio, f"with {{other}} it needs {memory / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free")
    if ratio < _LEAST:
        notes, tier = ["one model in fewer bits, by its shape: the draft knows what the target knows"], 2
    elif ratio < _CLOSE:
        notes, tier = ["close in size: little to gain"], 1
    elif ratio > _FAR:
        notes, tier = ["far apart in size: expect many rejected steps"], 1
    if target.active < target.weights:
        notes.append("a mixture of experts: to check a step at once takes more of them, so less is gained")
        tier = max(tier, 1)
    if bandwidth / max(1, target.footprint.read) < _SLOW:
        notes.append(f"slow: the target alone writes at most {bandwidth / target.footprint.read:.1f} tokens/s")
        tier += 1
    ahead, judged = 1 / max(1, draft.footprint.read), 1 / max(1, target.footprint.read)
    passes: dict[Role, float] = {"draft": ahead, "target": judged, "reward": judged}
    return Pair(draft, target, ratio, memory, gain(passes, ACCEPTED), tuple(notes), tier)


def _bytes(need: Footprint) -> int:
    return need.weights + need.cache + need.compute


def _rank(pair: Pair) -> tuple[float, ...]:
    return pair.tier, -pair.target.active, abs(math.log(pair.ratio / _USUAL)), pair.memory
