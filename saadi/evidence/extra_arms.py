"""Arms that change what the base generator's images are made of and which of them are taken; all others compare with 'base'.

    weak      one image each for label maps drawn by what the selectors miss (`saadi.mining.weakness`)
    mined     of those label maps the images that are hard for the selector and right for the judge (`saadi.mining.choosing`)
    learned   the same as mined, from start noise that has been learnt to become hard images (`saadi.mining.noise_shift`)
    hardest   of those label maps the images that are hardest for the selector, whatever the judge says: an attack
    gated     the first candidate of a label map that looks like real images (`saadi.plausibility`)
    refined   base images under label maps without their outermost pixels (`saadi.refinement`)
    few       one image each for the base's label maps by a generator fitted with `saadi.engines.few_shot`
    unlike    of the candidates of a label map that come near to no training image (`saadi.privacy.copies`) the one that the
              selectors find best: what the copy check costs, beside 'rejection', which takes the best of all of them
    painted   what a label map names, painted into the real image that it comes from
    guided    the same, with an edge that begins wider (`saadi.engines.regions.Guide`)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from saadi import quality
from saadi.downstream import hardness
from saadi.engines.regions import Guide, named_region
from saadi.engines.starting import NoiseShift, default_architecture
from saadi.errors import BadInputError, TooFewError
from saadi.evidence.cases import Example
from saadi.evidence.learners import Learners, to_arrays, to_tensors, without_notes
from saadi.evidence.rounds import Masks, Rounds
from saadi.evidence.settings import Settings
from saadi.evidence.stages import Arrays, Stage
from saadi.masks import class_of
from saadi.mining import noise_shift
from saadi.mining.choosing import KAPPA, Limits, hardest
from saadi.mining.noise_shift import Asked, ShiftConfig
from saadi.mining.weakness import Part, Weakness, parts_of, whole_part
from saadi.plausibility import Plausibility, RealImages, class_looks
from saadi.privacy.audit import MIN_HELD_OUT, People, audit
from saadi.privacy.copies import Traces
from saadi.records import Image, LabelMap
from saadi.refinement import choose, eroded

EXTRA_ARMS = ("few", "weak", "hardest", "mined", "learned", "gated", "unlike", "refined", "painted", "guided")
"""In the order in which they are measured: a gain is told over those before."""
OF_WEAKNESS = ("weak", "hardest", "mined", "learned")
"""Of the same label maps, drawn by what is missed."""
OF_MASKS = ("gated", "refined", "painted", "guided")
"""In classification there is no mask whose class could look wrong, nothing to erode and nothing to paint into."""
SOURCES = "_sources"
"""Of each label map the number of the real image that it is moved from."""
MASKS_PER_WANTED = 8
"""Label maps that are offered for each one that is drawn: a rare cell must be among them more than once."""
TURNS = 3
REACH_SHARE = 1 / 8
"""Of the side, by which a guide begins wider."""
WEAK_STREAM = 91
SEEDS_OF_TURN = 100_000


@dataclass(frozen=True)
class ExtraArms:
    """One draw's images for one kind of arm, from one cell's generator and scorers."""

    learners: Learners
    rounds: Rounds

    def check(self, kinds: Sequence[str]) -> None:
        """Raises: BadInputError: no such arm, or not in this task."""
        if unknown := [kind for kind in kinds if kind not in EXTRA_ARMS]:
            raise BadInputError(f"there is no arm {unknown[0]!r}; arms beside the usual ones are {', '.join(EXTRA_ARMS)}")
        if self.learners.case.task == "classification" and (wrong := [kind for kind in kinds if kind in OF_MASKS]):
            raise BadInputError(f"the arm {wrong[0]} is about masks, and {self.learners.case.name} has classes of whole images; "
                                "leave it out")  # fmt: skip

    def check_settings(self, kinds: Sequence[str], settings: Settings) -> None:
        """Raises: BadInputError: an arm has label maps or losses of its own, which the setting does not know."""
        if kinds and "sure" in settings.recipes:
            raise BadInputError("recipe 'sure' knows the masks of the usual arms alone; leave it or --arms out")
        if kinds and (settings.voters or settings.prefer != "fidelity"):
            raise BadInputError("these arms are made by what the selectors find; leave --voters and --prefer out, or --arms")

    def upstream(self, kind: str) -> dict[str, Any]:
        """What the images of an arm depend on beside the generator."""
        own = self.learners
        found: dict[str, Any] = {"extra": kind}
        if kind in (*OF_WEAKNESS, "refined", "unlike"):
            found |= {"selectors": own.keys_of(own.selectors())}
        if kind in OF_WEAKNESS:
            found |= {"drawn": "by class", "of": MASKS_PER_WANTED}
        if kind == "few":
            found |= {"few": own.generator(few=True).key}
        if kind in ("mined", "learned", "hardest", "gated", "unlike"):
            found |= {"k": own.settings.candidates}
        if kind == "learned":
            found |= {"start": self.start_stage().key}
        return found | ({"judge": own.scorer_stage("judge").key, "turns": TURNS} if kind in ("mined", "learned") else {})

    def make(self, kind: str, count: int, *, first_mask: int, first_seed: int) -> Arrays:
        """images (count, side, side, 3) and label_maps (count, side, side); names with '_' tell how it went."""
        if kind in OF_WEAKNESS:
            masks = self.weak_masks(count, first=first_mask)
            sources = {SOURCES: np.array([source for _, source in masks])}
            if kind == "weak":
                return _together(self._images(masks, first_seed), masks) | sources
            start = self._start() if kind == "learned" else None
            return self._mined(masks, first_seed, is_gated=kind != "hardest", start=start) | sources
        masks = self.rounds.masks(count, first=first_mask)
        if kind == "few":
            seeds = [first_seed + index for index in range(count)]
            return _together(self.rounds.images(0, masks, seeds, engine=self.learners.engine(few=True)), masks)
        if kind == "gated":
            return self._gated(masks, first_seed)
        if kind == "unlike":
            return self._unlike(masks, first_seed)
        if kind == "refined":
            return self._refined(masks, first_seed)
        return self._painted(masks, first_seed, is_guided=kind == "guided")

    def _images(self, masks: Masks, first_seed: int, start: NoiseShift | None = None) -> list[Image]:
        return self.rounds.images(0, masks, [first_seed + index for index in range(len(masks))], start=start)

    # ---- what is missed

    def weakness(self) -> Weakness:
        """Where the selectors fail in those of the real images that they have not seen."""
        real = self.learners.real
        return Weakness.of([part for index, seen, _ in self.unseen()
                            for part in self.parts(real[index].label_map, of=real[index], seen=seen)])  # fmt: skip

    def unseen(self) -> list[tuple[int, LabelMap, float]]:
        """Each real image's index, what the selector that has not seen it sees in it, and how well it finds its label map."""
        own, found = self.learners, []
        for fold, name in enumerate(own.selectors()):
            chosen = [index for index in range(len(own.real)) if own.num_folds == 1 or own.fold(index) == fold]
            images, asked = [own.real[index].image for index in chosen], [own.real[index].label_map for index in chosen]
            scorer = own.scorer(name)
            predictions, fidelities = scorer.predict(images), scorer.fidelity(images, asked)
            found += [(index, prediction.label_map, fidelity.mean)
                      for index, prediction, fidelity in zip(chosen, predictions, fidelities, strict=True)]  # fmt: skip
        return found

    def parts(self, label_map: LabelMap, *, of: Example | None = None, seen: LabelMap | None = None) -> list[Part]:
        group = of.group if of is not None else ""
        if self.learners.case.task == "classification":
            return [whole_part(class_of(label_map), seen=None if seen is None else class_of(seen), group=group)]
        return parts_of(label_map, image=of.image if of is not None else None, seen=seen, group=group)

    def weak_masks(self, count: int, *, first: int) -> Masks:
        """Moved versions of the real label maps, drawn by what the selectors miss."""
        weakness = self.weakness()
        offered = self.rounds.masks(MASKS_PER_WANTED * count, first=first)
        odds = weakness.odds([self.parts(label_map) for label_map, _ in offered])
        draw = np.random.default_rng([self.learners.seed, WEAK_STREAM, first])
        return [offered[int(place)] for place in sorted(draw.choice(len(offered), size=count, replace=False, p=odds))]

    # ---- which images are taken

    def start_stage(self) -> Stage:
        """Weights of the start noise that the selectors do badly from."""
        own = self.learners
        config = ShiftConfig(num_steps=own.settings.align_steps, seed=own.seed)
        settings = own.base | {"shift": asdict(config), "generator": own.generator().key}
        settings |= {"selectors": own.keys_of(own.selectors())}

        def make() -> Arrays:
            torch.manual_seed(own.seed)
            engine, targets = own.engine(), [one for name in own.selectors() for one in hardness.members(own.scorer(name))]
            rollout = engine.rollout(steps=config.rollout_steps)
            made = NoiseShift(default_architecture(num_classes=own.num_classes, noise=rollout.noise)).to(engine.device)
            told = noise_shift.fit(made, rollout, targets, len(own.real), lambda place: Asked(own.real[place].label_map), config,
                                   own.report, folder=own.stages.workspace("start", settings))  # fmt: skip
            return to_arrays(made.state_dict()) | {f"_{name}": np.array(value) for name, value in told.items()}

        return own.stages.get("start", settings, make)

    def _start(self) -> NoiseShift:
        side = self.learners.side
        architecture = default_architecture(num_classes=self.learners.num_classes, noise=(3, side, side))
        return NoiseShift(architecture, to_tensors(without_notes(self.start_stage().arrays))).eval()

    def _mined(self, masks: Masks, first_seed: int, *, is_gated: bool, start: NoiseShift | None = None) -> Arrays:
        """Of each label map one image; gated and without a prize after TURNS the most faithful one that looks real."""
        own, k = self.learners, self.learners.settings.candidates
        by_target = [fidelity for _, _, fidelity in self.unseen()]
        limits = Limits.of(by_target, by_target) or Limits(float(np.quantile(by_target, 0.1)), KAPPA)
        judge, stick = own.scorer("judge"), self.yardstick()
        taken: dict[int, Image] = {}
        second: dict[int, tuple[tuple[bool, float], Image]] = {}
        made = 0
        for turn in range(TURNS if is_gated else 1):
            places = [place for place in range(len(masks)) if place not in taken]
            if not places:
                break
            many = [masks[place] for place in places for _ in range(k)]
            images = self._images(many, first_seed + turn * SEEDS_OF_TURN, start)
            made += len(images)
            loss = 1 - own.scores(images, many)
            fidelity = [one.mean for one in judge.fidelity(images, [label_map for label_map, _ in many])]
            plausible = [one is None or one.verdict == "plausible" for one in _judged(stick, images, many)]
            for row, place in enumerate(places):
                mine = slice(row * k, (row + 1) * k)
                if not is_gated:
                    taken[place] = images[mine][int(loss[mine].argmax())]
                    continue
                best = hardest(fidelity[mine], loss[mine], plausible[mine], limits)
                if best is not None:
                    taken[place] = images[mine][best]
                for rank, image in zip(zip(plausible[mine], fidelity[mine], strict=True), images[mine], strict=True):
                    if place not in second or rank > second[place][0]:
                        second[place] = (rank, image)
        chosen = [taken[place] if place in taken else second[place][1] for place in range(len(masks))]
        return _together(chosen, masks) | {"_prizes": np.array(len(taken)), "_made": np.array(made)}

    def _gated(self, masks: Masks, first_seed: int) -> Arrays:
        k = self.learners.settings.candidates
        many = [mask for mask in masks for _ in range(k)]
        images, stick = self._images(many, first_seed), self.yardstick()
        found = _judged(stick, images, many)
        chosen, refused = [], 0
        for row in range(len(masks)):
            mine = list(range(row * k, (row + 1) * k))
            passing = [index for index in mine if (one := found[index]) is None or one.verdict == "plausible"]
            refused += not passing
            chosen.append(images[(passing or sorted(mine, key=lambda index: _strangeness(found[index])))[0]])
        return _together(chosen, masks) | {"_without": np.array(refused)}

    def _unlike(self, masks: Masks, first_seed: int) -> Arrays:
        """A label map whose candidates are all too near stays without an image; '_flagged' of '_made' were."""
        k, own = self.learners.settings.candidates, self.learners
        many = [mask for mask in masks for _ in range(k)]
        images = self._images(many, first_seed)
        fidelity = own.scores(images, many)
        # Nobody is held out in a cell: its patients are each other's strangers, for whom a verifier would not count.
        trained = People(Traces.of([e.image for e in own.real]), tuple(e.group for e in own.real))
        looked = audit(Traces.of(images), trained, None)
        if looked.flag_limit is None:
            raise TooFewError(f"{trained.num_patients} patients are too few to say how near strangers come, so copies cannot be "
                              f"looked for; {MIN_HELD_OUT} are needed, or leave the arm unlike out")  # fmt: skip
        flagged = {flag.item for flag in looked.flags}
        kept = []
        for row in range(len(masks)):
            free = [index for index in range(row * k, (row + 1) * k) if index not in flagged]
            if free:
                kept.append(max(free, key=fidelity.__getitem__))
        if not kept:
            raise TooFewError(f"all {len(images)} images of this generator come too near to its training images; fit it to more, "
                              "or leave the arm unlike out")  # fmt: skip
        told = {"_flagged": np.array(len(flagged)), "_made": np.array(len(images))}
        return _together([images[index] for index in kept], [many[index] for index in kept]) | told

    def yardstick(self) -> RealImages | None:
        """The real images of the cell; None with too few of them."""
        real = self.learners.real
        return RealImages.of({quality.LOOK: _looks([e.image for e in real])}, [class_looks(e.image, e.label_map) for e in real],
                             patients=[e.group for e in real], is_training=[True] * len(real))  # fmt: skip

    # ---- how they are made and labelled

    def _refined(self, masks: Masks, first_seed: int) -> Arrays:
        own, images = self.learners, self._images(masks, first_seed)
        seen: list[LabelMap] = [label_map for label_map, _ in masks]
        for fold, name in enumerate(own.selectors()):
            chosen = [index for index, (_, source) in enumerate(masks) if own.num_folds == 1 or own.fold(source) == fold]
            predictions = own.scorer(name).predict([images[index] for index in chosen])
            for index, prediction in zip(chosen, predictions, strict=True):
                seen[index] = prediction.label_map
        unseen = self.unseen()
        choices = choose(seen, [label_map for label_map, _ in masks], [shown for _, shown, _ in unseen],
                         [own.real[index].label_map for index, _, _ in unseen], num_classes=own.num_classes)  # fmt: skip
        radii = {index: choice.radius for index, choice in choices.items()}
        label_maps = np.stack([eroded(label_map, radii) for label_map, _ in masks])
        return {"images": np.stack(images), "label_maps": label_maps, "_radii": np.array([radii[i] for i in sorted(radii)])}

    def _painted(self, masks: Masks, first_seed: int, *, is_guided: bool) -> Arrays:
        own, side = self.learners, self.learners.side
        guide = Guide(max(1, round(REACH_SHARE * side))) if is_guided else None
        regions = []
        for label_map, source in masks:
            under = own.real[source]
            region = named_region(label_map, under.image, side=side, shown=under.label_map)
            regions.append(replace(region, guide=guide))
        seeds = [first_seed + index for index in range(len(masks))]
        images = own.engine().generate([label_map for label_map, _ in masks], seeds, regions=regions,
                                       on_step=lambda step, total: own.report(step, total, "painting"))  # fmt: skip
        return _together(images, masks)


def _together(images: Sequence[Image], masks: Masks) -> Arrays:
    return {"images": np.stack(list(images)), "label_maps": np.stack([label_map for label_map, _ in masks])}


def _looks(images: Sequence[Image]) -> NDArray[np.float32]:
    return np.stack([quality.look(image) for image in images])


def _judged(stick: RealImages | None, images: Sequence[Image], masks: Masks) -> list[Plausibility | None]:
    if stick is None:
        return [None] * len(images)
    looks = [class_looks(image, label_map) for image, (label_map, _) in zip(images, masks, strict=True)]
    return list(stick.judge({quality.LOOK: _looks(images)}, looks))


def _strangeness(found: Plausibility | None) -> float:
    return 0.0 if found is None else found.strangeness
