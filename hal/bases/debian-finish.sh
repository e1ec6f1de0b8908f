#!/bin/sh
# Runs in the tools tree after mmdebstrap; $1 is the new root tree.
# Takes away what differs between two builds and what an appliance must not have.
set -eu
root=$1

# Differ between builds: logs with times, a cache keyed by inode numbers, old copies of account files.
rm -rf "${root:?}"/var/log/* "${root:?}"/var/cache/* "${root:?}"/var/lib/apt "${root:?}"/var/lib/systemd/*
rm -f "${root:?}"/etc/passwd- "${root:?}"/etc/group- "${root:?}"/etc/shadow- "${root:?}"/etc/gshadow- "${root:?}"/etc/.pwd.lock
rm -f "${root:?}"/etc/ssh/ssh_host_* "${root:?}"/etc/hostname "${root:?}"/etc/resolv.conf
rm -f "${root:?}"/var/lib/dpkg/*-old "${root:?}"/var/lib/dpkg/lock* "${root:?}"/var/lib/dpkg/triggers/Lock
rm -rf "${root:?}"/run/* "${root:?}"/tmp/* "${root:?}"/boot/*

# The few packages that mmdebstrap unpacks by itself come whole: what dpkg leaves out of all others goes here, with
# the alternatives that lead to manual pages.
find "$root"/usr/share/doc -type f ! -name copyright -delete
find "$root"/usr/share/doc -mindepth 1 -type d -empty -delete
for left_out in man info locale lintian bug bash-completion zsh; do
	[ ! -d "$root/usr/share/$left_out" ] || find "$root/usr/share/$left_out" -mindepth 1 -delete
done
rm -f "${root:?}"/etc/alternatives/*.gz

# mmdebstrap notes the local archive that it installed from; an appliance installs nothing.
rm -rf "${root:?}"/etc/apt

# An empty machine-id tells systemd to make one for each boot and keep it in memory (machine-id(5)).
: > "${root:?}"/etc/machine-id

# Nothing in an appliance changes user: no setuid or setgid program.
find "$root" -xdev -type f -perm /6000 -exec chmod ug-s {} +

# What Debian starts by itself: the appliance names what it starts, in appliance.target or in /etc/init.d/S??*.
if [ -e "$root"/usr/lib/systemd/systemd ]; then
	find "${root:?}"/etc/systemd/system -mindepth 1 -delete
else
	rm -rf "${root:?}"/etc/systemd "${root:?}"/etc/init.d/* "${root:?}"/etc/rc?.d
fi

# EROFS gives every file one time, which would make Python take its compiled files for stale and compile
# them again at each start: compile them to be valid whatever the source's time is (PEP 552).
find "$root"/usr/lib/python3* -name __pycache__ -prune -exec rm -rf {} +
# The tools tree's Python is the same version as the root's: both come from one lock.
python3 -I -m compileall -q -j 0 --invalidation-mode unchecked-hash -s "$root" -p / "$root"/usr/lib/python3*

# Mount points of the packs and of what is writable.
mkdir -p "${root:?}"/srv/models "${root:?}"/var/lib/hal "${root:?}"/etc/hal
