"""Opens the teachers of the settings: their networks or their cached logits, and the images without masks."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from lightning_fabric import Fabric
from torch import nn

from skystill.allocator import keep_freed_memory
from skystill.data.map_rest import find_rest
from skystill.data.prepare import PreparedData, have_same_bands
from skystill.data.scale import check_each_scale, check_scale
from skystill.data.unlabeled import ImageWindow, find_unlabeled, whole_images
from skystill.errors import SettingsError
from skystill.progress import Message, OnProgress, phase, report_notes
from skystill.raster.input_spec import InputSpec
from skystill.run_folder import RunFolder
from skystill.settings import CacheSettings, DistillSettings, LearnSettings, TeacherSettings
from skystill.train.loop.distiller import Distiller, FeatureTerm
from skystill.train.losses.on_features import FEATURE_LOSSES, FeatureHook, check_crop
from skystill.train.losses.on_labels import build_student_loss
from skystill.train.losses.on_logits import DISTILLATION_LOSSES, DistillationLoss
from skystill.train.losses.terms import Term, parse_terms
from skystill.train.networks.blocks import to_memory_format
from skystill.train.networks.examples import input_spec_of, noise_images
from skystill.train.teachers.logit_cache import MARGIN, TILE, LogitCache, mirror_agreement
from skystill.train.teachers.origins import Teachers, cache_key, find_teachers
from skystill.train.teachers.teacher import Teacher

_OF_CACHE = ("cache", "cache_bits", "cache_symmetry")  # settings that only a cache of logits has


@dataclass(frozen=True)
class Teaching:
    """The teachers of a run, ready for training.

    Args:
        teachers: where the teachers come from, and which classes they know.
        networks: the loaded networks; empty if cached logits are used instead.
        caches: the cache of each teacher; empty if the networks run in every step.
        unlabeled: images without masks, or windows of large ones.
        missed_labels: labels of classes that the teachers have but do not find. They are learnt from labels alone.
    """

    teachers: Teachers
    networks: list[Teacher]
    caches: list[LogitCache]
    unlabeled: list[ImageWindow]
    missed_labels: tuple[int, ...] = ()

    @property
    def compared_labels(self) -> list[int | None] | None:
        """The label of each of the teachers' logits, None for one that is not compared; None if all classes are."""
        if not self.missed_labels:
            return None if self.teachers.taught_labels is None else list(self.teachers.taught_labels)
        known = self.teachers.taught_labels or range(self.teachers.num_classes)
        return [None if label in self.missed_labels else label for label in known]

    def fed_otherwise(self, fed: InputSpec) -> list[InputSpec]:
        """Return what the teachers are fed, without what the student is fed, each once.

        Args:
            fed: what the student is fed.
        """
        own = [(origin.input_spec, origin.knows_input) for origin in self.teachers.origins]
        # A network of SkyStill normalises by itself: of the same bands, only the values without data would differ.
        others = [
            spec for spec, knows in own if spec.reading != fed.reading and not (knows and have_same_bands(spec, fed))
        ]
        return list({spec.reading: spec for spec in others}.values())


def open_teaching(settings: DistillSettings, prepared: PreparedData, on_progress: OnProgress) -> Teaching:
    """Load the teachers, or open their caches.

    Args:
        settings: how to distil.
        prepared: the data, checked and split.
        on_progress: called with a `Progress` for each window of a map that is looked at.

    Raises:
        UserError: a teacher cannot be used, a cache is not complete, or an unlabelled image is a validation or test
            image.
    """
    check_teaching(settings)
    teachers = _find_teachers(settings, prepared)
    unlabeled = _unlabeled(settings, prepared, on_progress)
    if settings.teacher_mode == "online":
        return Teaching(teachers, teachers.load(), [], unlabeled)
    caches = logit_caches(settings, teachers)
    for text, cache in zip(settings.teacher, caches, strict=True):
        images = [*whole_images(prepared.split.train), *unlabeled]
        missing = cache.missing(images)
        if missing:
            raise SettingsError(
                f"{len(missing)} of {len(images)} images have no logits of {text} in {cache.folder} "
                f"({missing[0].name}, ...); {cache.what_else()}. Fill it with skystill cache, same data, split, "
                "teacher, --cache-bits, --cache-symmetry and --distillation-stride."
                + (" Machines share this folder, or it is filled on each of them." if settings.nodes > 1 else "")
            )
    return Teaching(teachers, [], caches, unlabeled)


def check_teaching(settings: DistillSettings) -> None:
    """Check the settings about teachers and losses. No file is opened.

    Raises:
        SettingsError: a loss does not exist or does not work with a cache, the weights do not fit the teachers, or the
            crop cannot be divided into blocks.
    """
    if settings.teacher_weight and len(settings.teacher_weight) != len(settings.teacher):
        raise SettingsError(f"{len(settings.teacher)} teacher(s), but {len(settings.teacher_weight)} --teacher-weight.")
    if any(weight <= 0 for weight in settings.teacher_weight):
        raise SettingsError("--teacher-weight must be more than 0.")
    if settings.crop % settings.distillation_stride:
        raise SettingsError(f"--crop {settings.crop} does not divide into blocks of --distillation-stride "
                            f"{settings.distillation_stride}; take another crop, or stride 1.")  # fmt: skip
    _check_mix(settings)
    _check_used(settings)
    if (
        not settings.unlabeled
        and settings.unlabeled_fraction != LearnSettings.model_fields["unlabeled_fraction"].default
    ):
        raise SettingsError(f"--unlabeled-fraction {settings.unlabeled_fraction:g} is a part of each batch from images "
                            "without labels: give --unlabeled, or leave it out.")  # fmt: skip
    on_features = [term.name for term in distillation_terms(settings) if term.name in FEATURE_LOSSES]
    if settings.min_confidence and not (settings.unlabeled and len(on_features) < len(distillation_terms(settings))):
        raise SettingsError(f"--min-confidence {settings.min_confidence:g} is for losses on logits of images without "
                            "labels: give --unlabeled, and such a loss.")  # fmt: skip
    if on_features and settings.teacher_mode == "cached":
        raise SettingsError(f"{', '.join(on_features)}: losses on features need the teacher itself, not its cache: "
                            "--teacher-mode online.")  # fmt: skip
    if on_features and len(settings.teacher) > 1:
        raise SettingsError("losses on features compare layers: give one teacher.")


def _check_used(settings: DistillSettings) -> None:
    """Refuse settings that would change nothing."""
    if settings.teacher_mode == "online":
        given = [name for name in _OF_CACHE if getattr(settings, name) != DistillSettings.model_fields[name].default]
        if given:
            raise SettingsError(f"--{given[0].replace('_', '-')} is for cached logits: give --teacher-mode cached, or "
                                "leave it out.")  # fmt: skip
    on_features = any(term.name in FEATURE_LOSSES for term in distillation_terms(settings))
    for option, layer in (("--student-layer", settings.student_layer), ("--teacher-layer", settings.teacher_layer)):
        if layer is not None and not on_features:
            raise SettingsError(f"{option} {layer}: no loss compares layers. Give --distillation-loss one on features "
                                f"({', '.join(FEATURE_LOSSES)}), or leave it out.")  # fmt: skip
    if settings.measured is not None and not settings.has_budget:
        raise SettingsError(f"--measured {settings.measured} is for a budget: give --max-latency, --max-memory or "
                            "--max-size, or leave it out.")  # fmt: skip


def _check_mix(settings: LearnSettings) -> None:
    if settings.mix is None and settings.mix_fraction is not None:
        raise SettingsError(f"--mix-fraction {settings.mix_fraction:g} mixes nothing without --mix cutmix or mixup.")
    if settings.mix == "mixup" and settings.teacher_mode == "cached":
        raise SettingsError("--mix mixup averages crops, and the teacher's answer to an average is in no cache: "
                            "--teacher-mode online, or --mix cutmix.")  # fmt: skip
    ranks = settings.devices * settings.nodes
    if settings.mix is not None and settings.batch_size < 2 * ranks:
        raise SettingsError(f"--mix {settings.mix} mixes the crops of a process with each other, and --batch-size "
                            f"{settings.batch_size} is too small for that: {2 * ranks} or more.")  # fmt: skip


def logit_caches(settings: DistillSettings | CacheSettings, teachers: Teachers) -> list[LogitCache]:
    """Return the cache of each teacher.

    Args:
        settings: of `distill` or `cache`.
        teachers: the teachers.

    Raises:
        SettingsError: the folder of the cache is not given, and there is no default for it.
    """
    folder = settings.cache
    if folder is None and settings.run_teacher is not None:
        folder = RunFolder(settings.run_teacher).logits
    if folder is None and isinstance(settings, DistillSettings):
        folder = RunFolder(settings.out).logits
    if folder is None:
        raise SettingsError("say where the logits go: --cache DIR.")
    how = f"tile {TILE} margin {MARGIN}"
    return [
        LogitCache(
            folder,
            cache_key(origin, channels, how),
            settings.cache_symmetry == "d4",
            int(settings.cache_bits),
            settings.distillation_stride,
            origin.input_spec,
        )
        for origin, channels in zip(teachers.origins, teachers.channels, strict=True)
    ]


def fill_caches(settings: CacheSettings, prepared: PreparedData, on_progress: OnProgress) -> None:
    """Run each teacher on the images that have no cached logits yet.

    Args:
        settings: settings of the command.
        prepared: the data, checked and split. Its training images are cached.
        on_progress: called with a `Progress` for each image, and with notes. The first note comes before a teacher runs
            and gives the size on disk. For a cache without symmetry, a note gives the part of the pixels of a mirrored
            image on which cache and teacher agree.

    Raises:
        UserError: as `open_teaching`.
    """
    part, parts = (int(number) for number in settings.share.split("/"))
    if not 1 <= part <= parts:
        raise SettingsError(f"--share {settings.share}: the first number is 1 to the second.")
    teachers = _find_teachers(settings, prepared)
    caches = logit_caches(settings, teachers)
    images = [*whole_images(prepared.split.train), *_unlabeled(settings, prepared, on_progress)]
    if settings.on_cluster:  # which of them are there, the workers find out: it takes a look at every image
        on_progress(Message(f"{caches[0].folder}: the teacher's logits of {len(images):,} image(s), on a cluster."))
    else:
        on_progress(Message(_size_on_disk(caches, teachers, images)))
    own = images[part - 1 :: parts]
    if settings.on_cluster:
        from skystill.train.cluster_cache import fill_on_cluster  # needs the extra cluster

        report_notes([*teachers.notes, *fill_on_cluster(settings, caches, teachers, own, on_progress)], on_progress)
        return
    keep_freed_memory()
    fabric = Fabric(accelerator="auto", devices=1)
    notes = list(teachers.notes)
    for index, cache in enumerate(caches):
        if not cache.missing(own):
            continue
        with cache.held(part, parts, on_progress):
            if not cache.missing(own):
                continue  # the process that had it has filled it
            with phase(f"opening teacher {teachers.origins[index].text}", on_progress):
                teacher = teachers.load_one(index)
                fabric.to_device(to_memory_format(teacher, torch.channels_last))
            cache.fill(own, teacher, fabric.device, on_progress)
            if not cache.symmetric:
                with phase("comparing the cache with the teacher", on_progress):
                    same = mirror_agreement(cache, own[0], teacher, fabric.device)
                notes.append(f"mirrored cache and teacher agree on {100 * same:.1f} % of the pixels of {own[0].name}")
    report_notes(notes, on_progress)


def _size_on_disk(caches: Sequence[LogitCache], teachers: Teachers, images: Sequence[ImageWindow]) -> str:
    """Describe in a sentence which logits are cached, and how much disk space the missing ones will need."""
    count, size = 0, 0
    for cache, channels in zip(caches, teachers.channels, strict=True):
        missing = cache.missing(images)
        count += len(missing)
        size += cache.bytes_needed([image_window.size for image_window in missing], len(channels))
    wanted, folder = len(caches) * len(images), caches[0].folder
    if count == 0:
        return f"{folder}: the teacher's logits of all {wanted} image(s) are cached."
    begun = f"of {wanted - count} of {wanted} image(s) are cached; it goes on with the others"
    said = f"of {count} image(s) are computed" if count == wanted else begun
    return f"{folder}: the teacher's logits {said}: {size / 1e6:,.0f} MB."


def _find_teachers(settings: TeacherSettings, prepared: PreparedData) -> Teachers:
    # Not what a student was fed that was trained before: a cache, which knows no student, must be fed the same.
    fed, offered = prepared.measured or prepared.spec, prepared.offered
    teachers = find_teachers(
        settings.teacher, settings.teacher_classes, prepared.classes, fed, offered, settings.trust_teacher
    )
    for origin in teachers.origins:
        if origin.knows_input:
            check_scale([pair.image for pair in prepared.split.train], origin.input_spec, f"the teacher {origin.text}")
    return teachers


def _unlabeled(settings: TeacherSettings, prepared: PreparedData, on_progress: OnProgress) -> list[ImageWindow]:
    if not settings.unlabeled:
        return []
    split, spec, maps = prepared.split, prepared.spec, prepared.check.maps
    rest = partial(find_rest, prepared.check, split, spec, on_progress)
    held_out = [*split.validation, *split.test]
    found = find_unlabeled(settings.unlabeled, held_out, spec, rest, maps, split.train, on_progress)
    check_each_scale([window.path for window in found], spec)
    return found


def distillation_terms(settings: DistillSettings) -> list[Term]:
    """Return the parts of the distillation loss.

    Raises:
        SettingsError: a name or a weight cannot be used.
    """
    return parse_terms(settings.distillation_loss, [*DISTILLATION_LOSSES, *FEATURE_LOSSES])


def build_distiller(
    student: nn.Module,
    teaching: Teaching,
    settings: DistillSettings,
    fabric: Fabric,
    optimizer: torch.optim.Optimizer,
    **more: object,
) -> Distiller:
    """Build a distiller and compile it as the settings say.

    Args:
        student: the network to train.
        teaching: the teachers.
        settings: losses, alpha and temperature.
        fabric: devices and precision.
        optimizer: optimiser over the weights of the student.
        more: further arguments of `Distiller.compile`; by default the student loss of the settings, without weights.

    Raises:
        SettingsError: a loss, its weight or a layer cannot be used.
    """
    weights, taught = settings.teacher_weight or None, teaching.compared_labels
    task = Distiller(student, teaching.networks or None, fabric, weights, taught)
    terms = distillation_terms(settings)
    on_logits: dict[str, tuple[float, DistillationLoss]] = {
        term.name: (term.weight, DISTILLATION_LOSSES[term.name](settings.temperature))
        for term in terms
        if term.name in DISTILLATION_LOSSES
    }
    more.setdefault("student_loss", build_student_loss(settings.student_loss))
    task.compile(
        optimizer,
        distillation_loss=on_logits,
        alpha=settings.alpha,
        alpha_end=settings.alpha_at_end,
        temperature=settings.temperature,
        stride=settings.distillation_stride,
        min_confidence=settings.min_confidence,
        features=_feature_terms(student, task.teachers, settings, [t for t in terms if t.name in FEATURE_LOSSES]),
        **more,  # type: ignore[arg-type]
    )
    return task


def _feature_terms(
    student: nn.Module, teachers: Sequence[Teacher], settings: DistillSettings, terms: Sequence[Term]
) -> list[FeatureTerm]:
    """Build the feature losses.

    They need the numbers of channels of both layers. A forward pass of one small image shows them.

    Raises:
        SettingsError: there is no such layer, or the student's layer is frozen.
    """
    if not terms:
        return []
    check_crop(settings.crop, student, teachers[0], teachers[0].network)
    hooks = (
        FeatureHook(student, settings.student_layer, "student"),
        FeatureHook(teachers[0].network, settings.teacher_layer, "teacher"),
    )
    fed = input_spec_of(student)
    student.eval()(noise_images(fed, 1, 64, 64).to(next(student.parameters()).device))
    teachers[0](noise_images(teachers[0].input_spec or fed, 1, 64, 64).to(teachers[0].mean.device))
    shown = [one.take() for one in hooks]
    if not shown[0].requires_grad:
        why = f"is frozen (--freeze {settings.freeze})" if settings.freeze else "has nothing before it that learns"
        raise SettingsError(
            f"{', '.join(term.name for term in terms)}: the student's layer {hooks[0].path} {why}, so that it cannot "
            f"learn the teacher's features. {'Freeze fewer levels, or choose' if settings.freeze else 'Choose'} a "
            "later layer: --student-layer."
        )
    channels = [one.shape[1] for one in shown]
    return [FeatureTerm(t.name, t.weight, FEATURE_LOSSES[t.name](*channels), *hooks) for t in terms]
