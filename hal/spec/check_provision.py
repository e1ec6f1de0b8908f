"""What cannot work in how a spec's models come in: delivery, the provisioner's block, the room for them.

As in `hal.spec.check`, each check is a pure function of what was chosen, but for files that it must look at.
"""

from __future__ import annotations

from collections.abc import Iterator

from hal.documents.document import Problem
from hal.documents.size import format_size
from hal.models import FileSource, Model, NetworkSource, PypiSource
from hal.spec.check_gateway import certificates_problem
from hal.spec.chosen import Chosen

MIB = 1 << 20
GIB = 1 << 30

RESERVE = 64 * MIB
"""What the provisioner leaves free on the state partition, for what the other services keep there."""

LEAST_STATE = 32 * MIB
"""ext4 with a journal takes about 10 MiB of a small file system for itself."""

JOURNALS = (
    *((128 * MIB, 4), (GIB, 16), (2 * GIB, 32), (16 * GIB, 64)),
    *((32 * GIB, 128), (64 * GIB, 256), (128 * GIB, 512)),
)
"""MiB of ext4's journal on file systems up to a size (e2fsprogs, ext2fs_default_journal_size)."""

LARGEST_JOURNAL = 1024

SMALL = 512 * MIB
"""Below, mke2fs makes an inode for each 4 KiB and not for each 16 KiB (mke2fs.conf(5), `small`)."""

INODE = 256
"""Bytes of an inode in its table."""

VERITY = 1 / 127
"""What fs-verity keeps besides a file: a hash of 32 bytes for each block of 4,096, and hashes of those."""

HERE_HINT = "deliver it as `image`, `disk` or `import`; `hal models pin` writes entries that can be fetched"
DNS_HINT = "`network: {dns: [ADDRESS]}` gives the servers, `provision: {proxy: URL}` a proxy that has some"


def delivery(chosen: Chosen) -> Iterator[Problem]:
    """Models that are to be fetched: from places that an appliance can reach, where it may."""
    for index, model in chosen.models:
        if model.delivery != "network":
            continue
        if chosen.spec.offline:
            text = f"{model.name} would be fetched at run time, and the spec says `offline: true`"
            hint = "deliver it as `image`, `disk` or `import`, or take `offline` out"
            yield Problem(("models", index, "delivery"), text, hint=hint)
        here = next((file for file in model.files if isinstance(file.source, PypiSource | FileSource)), None)
        if here is not None:
            where = "in a wheel" if isinstance(here.source, PypiSource) else "on the machine that builds"
            text = f"cannot be network: {here.name} lies {where}, where the appliance cannot fetch it"
            yield Problem(("models", index, "delivery"), text, hint=HERE_HINT)


def names(chosen: Chosen) -> Iterator[Problem]:
    """Hosts are named in URLs: an appliance that fetches needs a name server, or a proxy that has one."""
    spec = chosen.spec
    if spec.network.dhcp or spec.network.dns or spec.provision.proxy is not None:
        return
    for index, model in chosen.models:
        if model.delivery == "network":
            text = f"{model.name} comes from hosts that have names, and the appliance has no name server"
            yield Problem(("models", index, "delivery"), f"{text} (`network.dns`)", hint=DNS_HINT)


def provision(chosen: Chosen) -> Iterator[Problem]:
    """Values of the provisioner's block that do not go together."""
    asked = chosen.spec.provision
    if asked.cap < asked.first_backoff:
        text = f"is {asked.cap:g}, and the first pause (`first_backoff`) is longer: {asked.first_backoff:g}"
        yield Problem(("provision", "cap"), text)
    if asked.bandwidth == 0:
        yield Problem(("provision", "bandwidth"), "must be more than nothing; leave it out for no limit")
    if asked.no_proxy and asked.proxy is None:
        yield Problem(("provision", "no_proxy"), "there is no `proxy`")
    if asked.ca is not None:
        file = chosen.directory / asked.ca
        try:
            found = certificates_problem(file)
        except (OSError, ValueError) as error:
            found = getattr(error, "strerror", None) or "is no file name"
        if found:
            yield Problem(("provision", "ca"), f"{file}: {found}")


def mirrors(chosen: Chosen) -> Iterator[Problem]:
    """With `mirrors.only`, a mirror for each kind of source that a fetched model has."""
    known = chosen.spec.provision.mirrors
    if not known.only:
        return
    kinds = {
        file.source.kind
        for _, model in chosen.models
        if model.delivery == "network"
        for file in model.files
        if isinstance(file.source, NetworkSource)
    }
    for kind in sorted(kinds):
        if not getattr(known, kind):
            text = f"the sources themselves are never asked, and there is no mirror for {kind}"
            yield Problem(("provision", "mirrors", "only"), text)


def quota(chosen: Chosen) -> Iterator[Problem]:
    """A quota that the models fit into."""
    limit = chosen.spec.provision.quota
    needed = on_state([model for _, model in chosen.models])
    if limit is not None and limit < needed:
        text = f"{format_size(limit)} is too little: the models that come at run time have {_exact(needed)}"
        yield Problem(("provision", "quota"), text)


def on_state(models: list[Model]) -> int:
    """Bytes of the models that lie on the state partition: fetched or given at run time."""
    return sum(model.size for model in models if not model.packed)


def state_needed(content: int) -> int:
    """The least size of a state partition that takes models of `content` bytes, in whole MiB.

    With fs-verity's hashes, the reserve, and what ext4 takes for itself.
    """
    wanted = int(content * (1 + VERITY)) + RESERVE
    size = -(-wanted // MIB) * MIB
    while room(size) < wanted:
        size += max(MIB, (wanted - room(size)) // MIB * MIB)
    return size


def room(size: int) -> int:
    """What files may take of an ext4 file system of `size` bytes, at least: measured with mke2fs 1.47."""
    inodes = size // (4096 if size < SMALL else 16384) * INODE
    journal = next((mib for limit, mib in JOURNALS if size < limit), LARGEST_JOURNAL) * MIB
    tables = min(size // 200, 96 * MIB) + MIB  # bitmaps, group descriptors and room for theirs to grow
    return max(0, size - inodes - journal - tables)


def _exact(size: int) -> str:
    """A size that can be put into a spec: rounded up to whole MiB."""
    return f"{-(-size // MIB)}M"
