"""The bill of materials of an appliance: each part with its version, licence and digest (`sbom.cdx.json`).

Each source of parts is a pure function from what describes them to `Component`s: a dpkg database and its
copyright files (debian.py), what Buildroot says of its packages (buildroot.py), wheels' metadata (wheels.py).
collect.py puts a build's parts together, through the cache; document.py writes them as CycloneDX 1.6.
"""
