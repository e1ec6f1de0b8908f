"""What a build's artefacts will measure as, computed beforehand: nothing is booted.

Pure functions of bytes: SEV-SNP launch digests (snp.py), TDX's MRTD and RTMRs (tdvf.py, tdx.py), a TPM's PCRs
(tpm.py), from EFI programs (pe.py), the partition table (gpt.py) and what extending a register means
(registers.py). document.py puts them together as `measurements.json`; explain.py says why two of them differ.

What cannot be computed with certainty is refused, with the reason in the document (docs/measurements.md).
"""
