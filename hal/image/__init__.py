"""The artefacts of an appliance: root tree, kernel and initrd, EROFS, dm-verity, UKI and disk."""
