"""The bill of materials as CycloneDX 1.6 writes it; the same contents give the same bytes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

import hal
from hal.image.identifiers import named_uuid
from hal.sbom.component import Component, Contents
from hal.sbom.licences import is_listed

if TYPE_CHECKING:
    from cyclonedx.model.component import Component as Entry
    from cyclonedx.model.license import License

NAME = "sbom.cdx.json"


def text(contents: Contents, seed: str, epoch: int) -> str:
    """The document: `seed` is the image's, from which its serial number follows; `epoch` is its time.

    The serial number also follows from the contents, since CycloneDX wants another one for another document.
    """
    from cyclonedx.model.bom import Bom
    from cyclonedx.output.json import JsonV1Dot6

    whole, *parts = contents.components
    entries = {component.ref: _entry(component) for component in contents.components}
    bom = Bom(
        serial_number=UUID(named_uuid(f"{seed}/{contents.digest}", "sbom")),
        components=[entries[part.ref] for part in parts],
    )
    bom.metadata.timestamp = datetime.fromtimestamp(epoch, UTC)
    bom.metadata.tools.components.add(_entry(Component("hal", "application", "hal", hal.__version__)))
    bom.metadata.component = entries[whole.ref]
    for component in contents.components:
        bom.register_dependency(entries[component.ref], [entries[ref] for ref in component.depends])
    return JsonV1Dot6(bom).output_as_string(indent=1) + "\n"


def _entry(component: Component) -> Entry:
    from cyclonedx.model import (
        ExternalReference,
        ExternalReferenceType,
        HashAlgorithm,
        HashType,
        Property,
        XsUri,
    )
    from cyclonedx.model.component import Component as Entry
    from cyclonedx.model.component import ComponentType
    from packageurl import PackageURL

    url = ExternalReference(type=ExternalReferenceType.DISTRIBUTION, url=XsUri(component.url))
    return Entry(
        bom_ref=component.ref,
        type=ComponentType(component.kind),
        name=component.name,
        version=component.version or None,
        purl=PackageURL.from_string(component.purl) if component.purl else None,
        cpe=component.cpe or None,
        licenses=[_licence(component)] if component.licence else None,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=component.sha256)] if component.sha256 else None,
        external_references=[url] if component.url else None,
        properties=[Property(name=name, value=value) for name, value in component.properties],
    )


def _licence(component: Component) -> License:
    """One of SPDX's identifiers, the name of a licence that it does not list, or an expression."""
    from cyclonedx.model.license import DisjunctiveLicense, LicenseAcknowledgement, LicenseExpression

    words = component.licence
    acknowledgement = (
        LicenseAcknowledgement.CONCLUDED if component.concluded else LicenseAcknowledgement.DECLARED
    )
    if " " in words:
        return LicenseExpression(words, acknowledgement=acknowledgement)
    if is_listed(words):
        return DisjunctiveLicense(id=words, acknowledgement=acknowledgement)
    return DisjunctiveLicense(name=words, acknowledgement=acknowledgement)
