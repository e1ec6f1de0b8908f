#!/bin/sh
# BR2_ROOTFS_POST_IMAGE_SCRIPT: from rootfs.erofs to what boots, in images/:
#   root.img       the root with its dm-verity hash tree behind it
#   disk.img       GPT: the root and the state partition
#   cmdline        the kernel's command line, which opens the root by its hash (dm-mod.create=)
#   start-qemu.sh  starts all of it in QEMU
# Equal inputs give equal bytes: salt, identifiers and times follow from the image's name and version.
set -eu
images=${1:?usage: post-image.sh IMAGES}
board=$(cd "$(dirname "$0")" && pwd)
external=${board%/board/hal}

# A string of Buildroot's configuration; it may name the external tree's path.
setting() {
	sed -n "s/^$1=\"\(.*\)\"\$/\1/p" "$BR2_CONFIG" | sed "s|\$(BR2_EXTERNAL_HAL_PATH)|$external|g"
}

# An identifier of the form of a UUID that follows from a text.
uuid() {
	printf %s "$1" | sha256sum | sed 's/^\(.\{8\}\)\(.\{4\}\).\(.\{3\}\).\(.\{3\}\)\(.\{12\}\).*/\1-\2-5\3-8\4-\5/'
}

rendered=$(setting BR2_PACKAGE_HAL_APPLIANCE_RENDERED)
spec=$(setting BR2_PACKAGE_HAL_APPLIANCE_SPEC)
work=$BUILD_DIR/hal-image
rm -rf "$work"
mkdir -p "$work/input" "$work/root" "$work/tmp"
"$external/support/install_rendered.py" "$rendered" "$spec" "$work" usr/lib/os-release
# shellcheck source=/dev/null
. "$work/usr/lib/os-release"
name=${IMAGE_ID}_${IMAGE_VERSION}
arguments=$(cat "$rendered/$spec/CMDLINE")
# Types of partitions: the Discoverable Partitions Specification (UAPI.2).
root_type=4f68bce3-e8cd-4db1-96e7-fbcaf984b709
linux_type=0fc63daf-8483-4772-8e79-3d69d8477de4
if grep -q '^BR2_aarch64=y' "$BR2_CONFIG"; then
	root_type=b921b045-1df0-41c3-af44-4c6f280d3fae
	arguments=$(printf %s "$arguments" | sed 's/console=ttyS0/console=ttyAMA0/')
fi

# The hash tree follows the data; no superblock, since what a disk says of itself is not trusted.
root=$work/input/root.img
cp "$images/rootfs.erofs" "$root"
size=$(stat -c %s "$root")
blocks=$((size / 4096))
[ "$size" -eq $((blocks * 4096)) ] || { echo "post-image: rootfs.erofs is no whole number of blocks" >&2; exit 1; }
salt=$(printf 'root of %s' "$name" | sha256sum | cut -c1-64)
hash=$(veritysetup format --no-superblock --hash=sha256 --data-block-size=4096 --hash-block-size=4096 \
	--data-blocks="$blocks" --hash-offset="$size" --salt="$salt" "$root" "$root" | sed -n 's/^Root hash:[[:space:]]*//p')
[ "${#hash}" -eq 64 ] || { echo "post-image: veritysetup gave no root hash" >&2; exit 1; }

# The state partition; the appliance lets it grow with its disk, which wants 4,096-byte blocks. With the feature
# `verity` a model that arrives can be sealed.
export E2FSPROGS_FAKE_TIME="${SOURCE_DATE_EPOCH:-1}"
mke2fs -q -t ext4 -O verity -L state -U "$(uuid "state of $name")" -b 4096 -m 0 \
	-E "hash_seed=$(uuid "state of $name"),root_owner=0:0,lazy_itable_init=1,lazy_journal_init=1,nodiscard" \
	-F "$work/input/state.img" 64M

cat >"$work/genimage.cfg" <<EOF
image disk.img {
	hdimage {
		partition-table-type = "gpt"
		disk-uuid = "$(uuid "disk of $name")"
	}
	partition "$name" {
		image = "root.img"
		align = 1M
		partition-type-uuid = "$root_type"
		partition-uuid = "$(uuid "partition of $name")"
	}
	partition "state" {
		image = "state.img"
		align = 1M
		partition-type-uuid = "$linux_type"
		partition-uuid = "$(uuid "state partition of $name")"
	}
}
EOF
genimage --config "$work/genimage.cfg" --rootpath "$work/root" --tmppath "$work/tmp" \
	--inputpath "$work/input" --outputpath "$images"
cp "$root" "$images/root.img"

# `hal.root=` says once more, for hal-boot's report and for hal's own initrd, what dm-mod.create= opens.
device=PARTLABEL=$name
table="0 $((size / 512)) verity 1 $device $device 4096 4096 $blocks $blocks sha256 $hash $salt 1 panic_on_corruption"
printf '%s root=/dev/dm-0 rootfstype=erofs rootwait init=/usr/lib/hal/boot dm-mod.waitfor=%s dm-mod.create="root,,,ro,%s" %s\n' \
	"$arguments" "$device" "$table" "hal.root=$name,$blocks,$salt,$hash" >"$images/cmdline"
install -m 0755 "$board/start-qemu.sh" "$images/start-qemu.sh"
rm -rf "$work"
