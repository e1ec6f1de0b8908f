#!/bin/sh
# Starts the appliance that lies beside this script. The gateway answers at http://127.0.0.1:7001/health (https in production).
#   start-qemu.sh [--ssh-key FILE.pub] [QEMU ARGUMENT]...
# A debug image takes an ssh key and listens at port 2222: ssh -p 2222 root@127.0.0.1
# The disk is not changed. MEMORY, CPUS, PORT and SSH_PORT are taken from the environment.
set -eu
cd "$(dirname "$0")"

if [ -e Image ]; then
	qemu=qemu-system-aarch64 machine=virt kernel=Image
else
	qemu=qemu-system-x86_64 machine=q35 kernel=bzImage
fi
# Emulated CPUs that wait for each other are slower than one.
accelerator="-accel tcg -cpu max" cpus=1
if [ -w /dev/kvm ] && grep -qE '^flags.* (vmx|svm)( |$)' /proc/cpuinfo && [ "$kernel" = bzImage ]; then
	accelerator="-accel kvm -cpu host" cpus=2
fi
if [ "${1:-}" = --ssh-key ]; then
	key=$(base64 <"$2" | tr -d '\n')
	shift 2
	set -- -smbios "type=11,value=io.systemd.credential.binary:ssh.authorized_keys.root=$key" "$@"
fi
# shellcheck disable=SC2086 # the accelerator's words
exec "$qemu" -machine "$machine" $accelerator -m "${MEMORY:-1G}" -smp "${CPUS:-$cpus}" \
	-nodefaults -no-user-config -display none -serial stdio -no-reboot \
	-kernel "$kernel" -append "$(cat cmdline)" \
	-drive file=disk.img,format=raw,if=none,id=disk,snapshot=on -device virtio-blk-pci,drive=disk \
	-netdev "user,id=net,hostfwd=tcp:127.0.0.1:${PORT:-7001}-:7001,hostfwd=tcp:127.0.0.1:${SSH_PORT:-2222}-:22" \
	-device virtio-net-pci,netdev=net,romfile= -device virtio-rng-pci "$@"
